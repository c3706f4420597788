// Small charts, drawn as SVG: confidence over pictures, latency by step, channels on a head.

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

function node(name, attributes, text) {
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
  const points = values.map((v, i) => `${(300 * i) / (values.length - 1)},${(52 - 48 * v).toFixed(1)}`);
  svg.append(node("polygon", { points: `0,56 ${points.join(" ")} 300,56`, class: "area" }));
  svg.append(node("polyline", { points: points.join(" "), class: "line" }));
}

export function drawBars(svg, windows, selected) {
  const shown = windows.slice(-BARS);
  const all = shown.map((w) => steps(w.meta));
  const highest = Math.max(50, ...all.map((s) => s.reduce((sum, v) => sum + (v ?? 0), 0)));
  svg.replaceChildren();
  const width = 600 / BARS;
  shown.forEach((w, i) => {
    let y = 120;
    const group = node("g", { class: w === selected ? "bar selected" : "bar" });
    all[i].forEach((value, step) => {
      if (!value) return;
      const height = (112 * value) / highest;
      y -= height;
      group.append(node("rect", { x: (600 - width * (shown.length - i) + 1.5).toFixed(1), y: y.toFixed(2),
        width: width - 3, height: height.toFixed(2), class: `step ${STEPS[step][0]}` }));
    });
    svg.append(group);
  });
}

const ROWS = { FP: 0.92, AF: 0.72, F: 0.48, FC: 0.24, FT: 0.24, C: 0, T: 0, CP: -0.24, TP: -0.24, P: -0.48, PO: -0.72, O: -0.92, I: -1.05 };

/** Where a channel of the 10-10 system sits on a head seen from above, nose up; null for any other name. */
export function place(name) {
  const match = /^(FP|AF|FC|FT|CP|TP|PO|F|C|T|P|O|I)(Z|\d{1,2})$/i.exec(name.trim());
  if (!match) return null;
  const y = ROWS[match[1].toUpperCase()];
  if (/z/i.test(match[2])) return [0, y];
  const number = Number(match[2]);
  // 1, 3, 5, 7 and 9 are 1/4, 2/4 ... of the way to the ear; in the outermost rows 1 is on the rim.
  const outward = Math.ceil(number / 2) / (Math.abs(y) > 0.9 ? 1.2 : 4);
  const half = Math.sqrt(Math.max(0.16, 1 - y * y)) * 0.92;
  const x = (number % 2 ? -1 : 1) * Math.min(outward, 1.12) * half;
  return [x, y * (1 - 0.1 * Math.abs(outward))];
}

/** Draw channels by how far their level is from the median: the flat and the wild stand out. */
export function drawHead(svg, levels) {
  const entries = Object.entries(record(levels)).map(([name, rms]) => [name, rms, place(name)]).filter(([, rms, at]) => at && Number.isFinite(rms));
  svg.toggleAttribute("hidden", entries.length < 4);
  if (entries.length < 4) return;
  const usual = median(entries.map(([, rms]) => rms)) || 1;
  svg.replaceChildren(
    node("path", { d: "M-.13 -1.03 L0 -1.2 L.13 -1.03", class: "outline" }),
    node("circle", { cx: 0, cy: 0, r: 1.04, class: "outline" }));
  const wrong = [];
  for (const [name, rms, [x, y]] of entries) {
    const ratio = rms / usual;
    const kind = ratio < 0.1 ? "flat" : ratio > 5 ? "noisy" : "good";
    if (kind !== "good") wrong.push(`${name} ${kind}`);
    const dot = node("circle", { cx: x.toFixed(3), cy: (-y).toFixed(3), r: 0.065, class: `channel ${kind}` });
    dot.append(node("title", {}, `${name}: ${ratio.toFixed(1)} times the usual level`));
    svg.append(dot);
  }
  svg.setAttribute("aria-label", wrong.length ? `Signal by channel: ${wrong.join(", ")}` : "Signal by channel: all usual");
}
