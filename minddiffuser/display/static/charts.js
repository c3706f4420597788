// Small charts, drawn as SVG: confidence over pictures, latency by step.

const NS = "http://www.w3.org/2000/svg";
const BARS = 40;

/** Steps of a picture's way and the two times each lies between. */
export const STEPS = [
  ["ready", "window ready", "acquired", "ready"],
  ["decode", "decode", "ready", "decoded"],
  ["stage1", "stage 1", "decoded", "stage1"],
  ["stage2", "stage 2", "stage1", "stage2"],
  ["publish", "publish", "stage2", "published"],
];

/** Make an element of a drawing. */
export function node(name, attributes, text) {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

/** What comes from outside may be anything: take it for an object, or for an empty one. */
export const record = (value) => (value && typeof value === "object" && !Array.isArray(value) ? value : {});

/** Milliseconds of each step of one meta; null where a time is missing. */
export function steps(meta) {
  const times = record(meta.times);
  return STEPS.map(([, , from, to]) =>
    Number.isFinite(times[from]) && Number.isFinite(times[to]) ? Math.max(0, 1000 * (times[to] - times[from])) : null);
}

export function median(values) {
  const sorted = values.filter((v) => v !== null && v !== undefined).sort((a, b) => a - b);
  return sorted.length ? sorted[Math.floor((sorted.length - 1) / 2)] : null;
}

export function drawTrend(svg, windows) {
  const values = windows.map((w) => w.meta.confidence).filter(Number.isFinite).slice(-BARS);
  svg.replaceChildren();
  if (values.length < 2) return;
  const points = values.map((v, i) => `${(300 * i) / (values.length - 1)},${(38 - 36 * v).toFixed(1)}`);
  svg.append(node("polygon", { points: `0,40 ${points.join(" ")} 300,40`, class: "area" }));
  svg.append(node("polyline", { points: points.join(" "), class: "line" }));
}

/** Draw a bar for each of the last windows; returns the milliseconds at the top of the axis. */
export function drawBars(svg, windows, selected) {
  const shown = windows.slice(-BARS);
  const all = shown.map((w) => steps(w.meta));
  const highest = rounded(Math.max(50, ...all.map((s) => s.reduce((sum, v) => sum + (v ?? 0), 0))));
  svg.replaceChildren();
  const width = 600 / BARS;
  shown.forEach((w, i) => {
    let y = 120;
    const group = node("g", { class: w === selected ? "bar selected" : "bar" });
    all[i].forEach((value, step) => {
      if (!value) return;
      const height = (120 * value) / highest;
      y -= height;
      group.append(node("rect", { x: (600 - width * (shown.length - i) + 1.5).toFixed(1), y: y.toFixed(2),
        width: width - 3, height: height.toFixed(2), class: `step ${STEPS[step][0]}` }));
    });
    svg.append(group);
  });
  return highest;
}

/** The next of 1, 2 and 5 times a power of ten. */
function rounded(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return power * [1, 2, 5, 10].find((step) => step * power >= value);
}
