// Confidence, latency, and the details that are folded away.

import { drawBars, drawTrend, median, record, STEPS, steps } from "./charts.js";
import { count, facts, milliseconds, text } from "./facts.js";
import { until } from "./rooms.js";

const $ = (id) => document.getElementById(id);

export function drawConfidence(of, window) {
  const confidence = window?.meta.confidence;
  const known = Number.isFinite(confidence);
  text($("confidence"), known ? confidence.toFixed(2) : "–");
  $("gauge").setAttribute("aria-valuenow", known ? confidence.toFixed(2) : "0");
  $("gauge").firstElementChild.style.width = `${100 * (known ? confidence : 0)}%`;
  const least = window?.meta.abstain_below ?? of.metrics.abstain_below;
  const marked = Number.isFinite(least) && least >= 0 && least <= 1;
  $("threshold").hidden = $("threshold-text").hidden = !marked;
  if (marked) {
    $("threshold").style.left = `${100 * least}%`;
    text($("threshold-text"), least > 0 ? `below ${Number(least.toFixed(2))}: abstained` : "never abstained: the threshold is 0");
  }
  const told = of.told;
  $("told").hidden = !told;
  if (told) {
    const chance = Number.isFinite(told.chance) ? `; chance ${Number((100 * told.chance).toPrecision(2))} %` : "";
    text($("told"), `told right so far ${count(told.right)} of ${count(told.of)}${chance}`);
  }
  drawTrend($("trend"), of.finals);
}

export function drawLatency(of, window) {
  const finals = of.finals;
  const top = drawBars($("bars"), finals, window && finals.find((w) => w.key === window.key));
  text($("latency-top"), `${top} ms`);
  text($("latency"), milliseconds(until(window ? steps(window.meta) : [], "publish")));
  const all = finals.slice(-40).map((w) => steps(w.meta));
  const now = window ? steps(window.meta) : [];
  facts($("legend"), STEPS.map(([key, name], i) => [name, milliseconds(now[i]), `median ${milliseconds(median(all.map((s) => s[i])))}`, key]));
}

export function drawDetails(of, window, display) {
  const [rates, queues, latency] = ["rates", "queues", "latency_ms"].map((key) => record(of.metrics[key]));
  const drops = Object.entries(record(of.metrics.drops)).filter(([, number]) => Number.isFinite(number));
  const dropped = drops.reduce((sum, [, number]) => sum + number, 0);
  const meta = window?.meta ?? {};
  facts($("pipeline"), [
    ["Pictures a second", Number.isFinite(rates.pictures) ? rates.pictures.toFixed(2) : "–"],
    ["Latency p50", milliseconds(latency.total?.p50)],
    ["Latency p99", milliseconds(latency.total?.p99)],
    ...engineSteps(meta, record(of.metrics.steps_ms)),
    ["Waiting", count(Object.values(queues).filter(Number.isFinite).reduce((a, b) => a + b, 0))],
    ["Without picture", count(dropped), drops.map(([what, number]) => `${what}: ${number}`).join("\n"), dropped > 0 ? "bad" : ""],
    ["Backend", meta.backend ?? "–"],
    ["Models", Object.values(record(meta.models)).join(", ") || "–"],
    ["Config", meta.config ?? of.status.config ?? "–"],
    ["Seed", meta.seed === undefined ? "–" : String(meta.seed)],
  ]);
  drawFaults(display);
}

/** Steps of the engine, of a pool also network and queue: of this picture, and their median and 99th percentile. */
function engineSteps(meta, percentiles) {
  const now = record(meta.steps_ms);
  const names = Object.keys(now).filter((name) => Number.isFinite(now[name]));
  const rows = names.map((name) => {
    const { p50, p99 } = record(percentiles[name]);
    return [`Engine: ${name}`, milliseconds(now[name]), `p50 ${milliseconds(p50)}, p99 ${milliseconds(p99)}`];
  });
  return Number.isFinite(meta.batch) ? [["Made together", `${count(meta.batch)} ${meta.batch === 1 ? "window" : "windows"}`], ...rows] : rows;
}

/** What the display itself could not do stands outside of what is folded away. */
function drawFaults({ refused, unarchived }) {
  const words = [refused ? `${count(refused)} messages refused` : "", unarchived ? `${count(unarchived)} not archived` : ""].filter(Boolean).join(", ");
  const summary = $("details").querySelector("summary");
  text(summary, words ? `Details: ${words}` : "Details");
  summary.classList.toggle("bad", Boolean(words));
}
