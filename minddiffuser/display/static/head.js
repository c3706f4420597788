// Channels on a head seen from above, each by its level against the calibration's.

import { median, node, record } from "./charts.js";

const ROWS = { FP: 0.92, AF: 0.72, F: 0.48, FC: 0.24, FT: 0.24, C: 0, T: 0, CP: -0.24, TP: -0.24, P: -0.48, PO: -0.72, O: -0.92, I: -1.05 };
const FLAT = 0.1;
const WILD = 5;
const RIM = 1.1;
const SPAN = 2; // doublings to either end of the colours

/** Where a channel of the 10-10 system sits, x to the right ear and y to the nose; null for any other name. */
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

/**
 * Channels as the metrics describe them: {name, ratio, at, bad, reason}. The ratio is to the calibration's level, where
 * the session knows it, else to the usual level of the other channels.
 */
export function channelsOf(metrics) {
  const told = record(metrics.signal).channels;
  if (Array.isArray(told) && told.length) return { channels: told.map(record).map(asTold), calibrated: true };
  const levels = Object.entries(record(record(metrics.ingest).channel_rms)).filter(([, level]) => Number.isFinite(level));
  const usual = median(levels.map(([, level]) => level)) || 1;
  return { channels: levels.map(([name, level]) => asMeasured(name, level / usual)), calibrated: false };
}

/** Places below the ears and the brow lie outside of the drawing: they go to its rim. */
function inside(x, y) {
  const far = Math.max(1, Math.hypot(x, y) / RIM);
  return [x / far, y / far];
}

function asTold({ name, level, reference_level: reference, status, reason, x, y }) {
  const ratio = Number.isFinite(level) && reference > 0 ? level / reference : null;
  const at = Number.isFinite(x) && Number.isFinite(y) ? inside(x, y) : place(String(name));
  const bad = status === "bad";
  return { name: String(name), ratio, at, bad, reason: typeof reason === "string" && reason ? reason : bad ? words(ratio) : "" };
}

function asMeasured(name, ratio) {
  const bad = ratio < FLAT || ratio > WILD;
  const reason = ratio < FLAT ? "flat" : ratio > WILD ? "noisy" : "";
  return { name, ratio, at: place(name), bad, reason: reason && `${reason}: ${times(ratio)} the other channels` };
}

const times = (ratio) => `${ratio.toLocaleString("en", { maximumSignificantDigits: 2 })} ×`;
const words = (ratio) => (ratio === null ? "bad" : `${times(ratio)} the calibration's level`);

/** Draw the head; hidden where fewer than four channels have a place. */
export function drawHead(svg, { channels, calibrated }) {
  const placed = channels.filter(({ at }) => at);
  svg.parentElement.toggleAttribute("hidden", placed.length < 4);
  if (placed.length < 4) return;
  svg.replaceChildren(
    node("path", { d: "M-.13 -1.03 L0 -1.2 L.13 -1.03", class: "outline" }),
    node("circle", { cx: 0, cy: 0, r: 1.04, class: "outline" }));
  const size = Math.max(0.05, Math.min(0.11, 0.55 / Math.sqrt(placed.length)));
  for (const { name, ratio, at: [x, y], bad, reason } of placed) {
    const dot = node("g", { class: `channel ${bad ? "bad" : "good"}`, transform: `translate(${x.toFixed(3)} ${(-y).toFixed(3)})` });
    dot.append(node("circle", { r: size, class: `level l${step(ratio)}` }));
    if (bad) dot.append(node("path", { d: `M${-size} ${-size}L${size} ${size}M${-size} ${size}L${size} ${-size}`, class: "cross" }));
    if (bad || placed.length <= 8) dot.append(node("text", { y: -size - 0.03, class: "name" }, name));
    dot.append(node("title", {}, `${name}: ${reason || (ratio === null ? "level not known" : `${times(ratio)} the ${calibrated ? "calibration's level" : "other channels"}`)}`));
    svg.append(dot);
  }
  const wrong = channels.filter(({ bad }) => bad).map(({ name, reason }) => `${name} ${reason}`);
  svg.setAttribute("aria-label", `Signal by channel: ${wrong.length ? wrong.join(", ") : "all usual"}`);
}

/** Which of the nine colours a ratio has: 0 a quarter or less, 4 the same, 8 four times or more. */
function step(ratio) {
  if (ratio === null) return "none";
  if (!(ratio > 0)) return 0;
  return Math.round(4 + 4 * Math.max(-1, Math.min(1, Math.log2(ratio) / SPAN)));
}

/** Draw the legend of the colours, once. */
export function drawScale(svg) {
  if (svg.childElementCount) return;
  for (let i = 0; i < 9; i += 1) svg.append(node("rect", { x: (100 / 9) * i, y: 0, width: 100 / 9, height: 6, class: `level l${i}` }));
  for (const [x, anchor, label] of [[0, "start", "¼ ×"], [50, "middle", "1 ×"], [100, "end", "4 ×"]]) {
    svg.append(node("text", { x, y: 15, "text-anchor": anchor }, label));
  }
}
