// All points of a run, from the CSV of which the page has only some.
const read = new Map(); // url -> promise of its columns, shared by the charts of the page

export function readSource(url) {
  if (!read.has(url)) {
    const columns = fetch(url).then((response) => {
      if (!response.ok) throw new Error(`${url}: ${response.status}`);
      return response.text();
    }).then(parseColumns);
    columns.catch(() => read.delete(url));
    read.set(url, columns);
  }
  return read.get(url);
}

// Returns the values of each column by its name; null where a field is empty.
export function parseColumns(text) {
  const [head, ...lines] = text.trimEnd().split(/\r?\n/);
  const names = head.split(",");
  const columns = Object.fromEntries(names.map((name) => [name, new Array(lines.length)]));
  lines.forEach((line, row) => {
    line.split(",").forEach((field, i) => (columns[names[i]][row] = field === "" ? null : Number(field)));
  });
  return columns;
}
