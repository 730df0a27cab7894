// How figures read: thin precision, always a unit.
const formats = new Map();
function fixed(digits) {
  if (!formats.has(digits)) {
    formats.set(digits, new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));
  }
  return formats.get(digits);
}

const NONE = "–";
const UNITS = ["B", "kB", "MB", "GB", "TB"];
const SHARES = /accuracy|precision|recall|f1|auc/;
const COSTS = /loss|error|perplexity/;

export const number = (value, digits = 0) => (value == null ? NONE : fixed(digits).format(value));
export const percent = (value, digits = 1) => (value == null ? NONE : `${fixed(digits).format(value * 100)} %`);

export function bytesParts(value) {
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return [number(value, unit && value < 100 ? 1 : 0), UNITS[unit]];
}
export const bytes = (value) => (value == null ? NONE : bytesParts(value).join(" "));

export function duration(seconds) {
  if (seconds == null) return NONE;
  if (seconds < 10) return `${number(seconds, 1)} s`;
  const whole = Math.round(seconds);
  const pad = (n) => String(n).padStart(2, "0");
  if (whole < 60) return `${whole} s`;
  if (whole === seconds && whole % 60 === 0 && whole < 3600) return `${whole / 60} min`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
  return `${Math.floor(whole / 3600)} h ${pad(Math.floor((whole % 3600) / 60))} min`;
}

/** Coarser than `duration`: for what is only an estimate. */
export function estimate(seconds) {
  if (seconds < 45) return "Less than a minute";
  if (seconds < 3600) return `About ${Math.round(seconds / 60)} min`;
  return `About ${duration(seconds)}`;
}

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minuteFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", year: "numeric" });
export const clock = (ms) => clockFormat.format(ms);
export const minute = (ms) => minuteFormat.format(ms);
export const day = (ms) => dayFormat.format(ms);

export function ago(ms, now = Date.now()) {
  const seconds = Math.max(0, (now - ms) / 1000);
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ago`;
  return dayFormat.format(ms);
}

export const isShare = (name) => SHARES.test(name);
export const isLowerBetter = (name) => COSTS.test(name);
export const metric = (name, value) => (isShare(name) ? percent(value) : number(value, 3));
export const metricLabel = (name) => {
  const words = name.replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
};

/** Exponential moving average: `weight` of what came before; 0 is the values themselves. It begins at nothing, and the bias of that is corrected
 * (as in Adam), so that the first values count no more than the later ones. */
export function smoothed(values, weight) {
  let [mean, known] = [0, 0];
  return values.map((value) => {
    mean = weight * mean + (1 - weight) * value;
    known = weight * known + (1 - weight);
    return mean / known;
  });
}
