// Arithmetic on points {x, y} that are sorted by x.

// Returns the points of a column of places and one of values; a point without either is left out.
export function joinColumns(places, values) {
  const points = [];
  values.forEach((y, i) => {
    if (y !== null && places[i] !== null && places[i] !== undefined) points.push({ x: places[i], y });
  });
  return points;
}

// Returns the exponential moving average. Dividing by the sum of the weights keeps the first ones from being drawn to 0.
export function smooth(points, weight) {
  let average = 0;
  let sum = 0;
  return points.map(({ x, y }) => {
    average = weight * average + (1 - weight) * y;
    sum = weight * sum + (1 - weight);
    return { x, y: average / sum };
  });
}

// Returns the index of the first point that is not left of x.
export function indexAt(points, x) {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].x < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

export function nearest(points, x) {
  const right = Math.min(indexAt(points, x), points.length - 1);
  const left = Math.max(right - 1, 0);
  return x - points[left].x < points[right].x - x ? left : right;
}

// Returns at most about `most` points from min to max and one on either side: the lowest and the highest of each stretch,
// so that no peak is lost.
export function thin(points, min, max, most) {
  const start = Math.max(indexAt(points, min) - 1, 0);
  const end = Math.min(indexAt(points, max) + 2, points.length);
  if (end - start <= most) return points.slice(start, end);
  const width = (end - start) / (most / 2);
  const thinned = [points[start]];
  for (let from = start; from < end; from += width) {
    const to = Math.min(Math.floor(from + width), end);
    let lowest = Math.floor(from);
    let highest = lowest;
    for (let i = lowest; i < to; i++) {
      if (points[i].y < points[lowest].y) lowest = i;
      if (points[i].y > points[highest].y) highest = i;
    }
    thinned.push(points[Math.min(lowest, highest)]);
    if (lowest !== highest) thinned.push(points[Math.max(lowest, highest)]);
  }
  thinned.push(points[end - 1]);
  return thinned;
}

// Returns the points from min to max, and where the line enters and leaves.
export function cut(points, min, max, isLine) {
  const inside = points.slice(indexAt(points, min), indexAt(points, max + (max - min) * 1e-9));
  if (!isLine || points.length < 2) return inside;
  const at = (x) => {
    const right = indexAt(points, x);
    if (right === 0 || right === points.length || points[right].x === x) return [];
    const [from, to] = [points[right - 1], points[right]];
    return [{ x, y: from.y + ((x - from.x) / (to.x - from.x)) * (to.y - from.y) }];
  };
  return [...at(min), ...inside, ...at(max)];
}
