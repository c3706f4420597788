// Earlier pictures: as many as there is room for, none of them cut; the others are reached by the arrows.

import { eventLabel } from "./rooms.js";
import { text } from "./facts.js";

const $ = (id) => document.getElementById(id);

const ROW_PX = 100;

/** Size thumbnails so that whole ones fill the strip from edge to edge; returns how many these are. */
function measure() {
  const { width, height } = $("strip").getBoundingClientRect();
  if (!(width > 0 && height > 0)) return 1;
  const gap = parseFloat(getComputedStyle($("strip")).rowGap) || 0;
  const rows = Math.max(1, Math.round(height / ROW_PX));
  const highest = Math.max(24, (height - gap * (rows - 1)) / rows);
  const columns = Math.ceil((width + gap) / (highest + gap));
  const side = (width + gap) / columns - gap;
  $("strip").style.setProperty("--thumb-px", `${Math.floor(64 * side) / 64}px`);
  return columns * Math.max(1, Math.floor((height + gap + 1) / (side + gap)));
}

/** Draw the strip of a session: the newest pictures, or those around the one that is looked at. */
export function drawStrip(of, window, paused, look) {
  const fits = measure();
  const finals = of.finals.toReversed();
  const at = paused ? finals.findIndex((w) => w.key === window?.key) : 0;
  const first = at < fits ? 0 : Math.min(at - Math.floor(fits / 2), finals.length - fits);
  const shown = finals.slice(first, first + fits);
  text($("strip-count"), shown.length ? `${first + 1}–${first + shown.length} of ${finals.length}` : "");
  const known = new Map([...$("strip").children].map((item) => [item.dataset.key, item]));
  const items = shown.map((w) => known.get(w.key) ?? makeThumb(w));
  const same = items.length === $("strip").children.length && items.every((item, i) => item === $("strip").children[i]);
  if (!same) $("strip").replaceChildren(...items);
  items.forEach((item, i) => {
    const button = item.firstChild;
    button.setAttribute("aria-current", String(paused && shown[i].key === window?.key));
    button.onclick = () => look(shown[i]);
    const image = item.querySelector("img");
    const { url } = shown[i].pictures.picture;
    if (image.dataset.url !== url) image.src = image.dataset.url = url;
  });
}

function makeThumb(window) {
  const item = document.createElement("li");
  item.dataset.key = window.key;
  const button = document.createElement("button");
  const image = new Image();
  image.alt = "";
  button.append(image);
  const label = `Look at the picture of ${eventLabel(window) || window.id}`;
  button.setAttribute("aria-label", label);
  button.title = label;
  item.append(button);
  return item;
}
