// Where the axes of a curve chart end, and round numbers to write on them.
const MOST_TICKS = 6;
const MARGIN = 0.05; // above and below the values, as a share of what they cover
const TIMES = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 18_000, 36_000, 86_400]; // s

function roundStep(wanted, isTime) {
  if (isTime && wanted > 0.5 && wanted <= TIMES.at(-1)) return TIMES.find((step) => step >= wanted);
  const power = 10 ** Math.floor(Math.log10(wanted));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= wanted * 0.999);
}

export function ticksOf({ min, max }, isTime = false) {
  const step = roundStep((max - min) / MOST_TICKS, isTime);
  const first = Math.ceil(min / step - 1e-6);
  const count = Math.floor(max / step + 1e-6) - first + 1;
  return Array.from({ length: Math.max(count, 0) }, (_, i) => ({ value: Number(((first + i) * step).toPrecision(12)) }));
}

// Returns the ends of the vertical axis. It does not go below zero where no value does.
export function limits(points, baselines, isLog) {
  const values = [...points.map(({ y }) => y), ...baselines.map(({ value }) => value)].filter((value) => !isLog || value > 0);
  if (!values.length) return isLog ? [0.1, 1] : [0, 1];
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  if (isLog) return [low / (high / low) ** MARGIN / 1.02, high * (high / low) ** MARGIN * 1.02];
  const isConstant = high - low <= 1e-6 * Math.abs(high); // a moving average of equal values differs in its last digits
  const margin = isConstant ? MARGIN * Math.abs(high) || 1 : MARGIN * (high - low);
  return [low >= 0 ? Math.max(low - margin, 0) : low - margin, high + margin];
}
