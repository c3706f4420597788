// The panel of the brain signal: what comes in, what is lost, and what is wrong.

import { drawHead, record } from "./charts.js";
import { count, facts, milliseconds } from "./facts.js";

const $ = (id) => document.getElementById(id);

/** Draw what comes in of a session. */
export function drawSignal(of) {
  const ingest = record(of.metrics.ingest);
  const gaps = (Array.isArray(ingest.gaps) ? ingest.gaps : []).slice(-8).map(record)
    .map(({ lost, length }) => `${count(lost)} samples, ${milliseconds(1000 * length)}`).join("\n");
  const bad = (value) => (value > 0 ? "bad" : "");
  const streams = Object.entries(record(ingest.streams)).map(([name, each]) => [name, record(each)]);
  const each = streams.map(([name, { state, lost }]) => `${name}: ${state ?? "–"}, ${count(lost)} lost`).join("\n");
  drawProblems($("problems"), of.over ? [] : ingest.problems);
  facts($("ingest"), [
    ["Source", ingest.state ?? of.status.state ?? "–", each, ingest.state === "lost" ? "bad" : ""],
    ...streams.filter(([, { state }]) => state === "lost").map(([name]) => [name, "lost", "", "bad"]),
    ...[["", ingest], ...streams].map(([name, of]) => rate(name, of)).filter(Boolean),
    ["Samples", count(ingest.samples)],
    ["Lost", count(ingest.lost), "", bad(ingest.lost)],
    ["Gaps", count(ingest.gap_count), gaps, bad(ingest.gap_count)],
    ...markers(ingest),
    ["Windows", count(ingest.windows)],
    ["Rejected", count(ingest.rejected), "", bad(ingest.rejected)],
  ]);
  drawHead($("head"), ingest.channel_rms);
}

/** What is wrong with the input now, a line each, as text. */
function drawProblems(list, problems) {
  const lines = (Array.isArray(problems) ? problems : []).filter((line) => typeof line === "string").slice(0, 20);
  list.hidden = !lines.length;
  if (JSON.stringify(lines) === JSON.stringify([...list.children].map((item) => item.textContent))) return;
  list.replaceChildren(...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line })));
}

/** The row of a stream's rate, where it is measured: how far from the declared one, and the drift of its clock. */
function rate(name, { measured_hz: measured, declared_hz: declared, drift_ppm: drift }) {
  if (!Number.isFinite(measured)) return null;
  const off = Number.isFinite(drift) ? Math.abs(drift) > 20000 : declared > 0 && Math.abs(measured / declared - 1) > 0.02;
  const of = Number.isFinite(declared) ? `, declared ${Number(declared.toFixed(2))}` : "";
  const parts = Number.isFinite(drift) ? `, ${drift > 0 ? "+" : ""}${Math.round(drift)} ppm` : "";
  return [name ? `Rate, ${name}` : "Rate", `${Number(measured.toFixed(2))} Hz${of}${parts}`, "", off ? "bad" : ""];
}

/** Rows of markers: how many came, and what kept others from a window. */
function markers({ events, ignored, unmade, pending, doubled }) {
  const without = [[ignored, "that do not match"], [unmade, "outside the data"], [doubled, "twice"], [pending, "waiting"]]
    .filter(([number]) => number > 0).map(([number, why]) => `${count(number)} ${why}`).join(", ");
  const rows = Number.isFinite(events) ? [["Markers", count(events)]] : [];
  return without ? [...rows, ["No window", without, "", ignored > 0 || unmade > 0 ? "bad" : ""]] : rows;
}
