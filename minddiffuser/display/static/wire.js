// The socket to the display's own server: reconnects, and takes frames apart.

const decoder = new TextDecoder();

/** Take a binary message apart: [header, {kind: {blob, sha256}}]. */
export function unpack(buffer) {
  const length = new DataView(buffer).getUint32(0);
  const header = JSON.parse(decoder.decode(new Uint8Array(buffer, 4, length)));
  const pictures = {};
  let at = 4 + length;
  for (const part of header.parts) {
    const bytes = buffer.slice(at, at + part.bytes);
    pictures[part.kind] = { blob: new Blob([bytes], { type: part.content_type }), sha256: part.sha256 };
    at += part.bytes;
  }
  return [header, pictures];
}

/** The secret of the page's own address, '' where none is asked for. */
export const token = () => new URLSearchParams(location.hash.slice(1)).get("token") ?? "";

/** Fetch a session as a zip; raises with the server's words. */
export async function fetchSession(name) {
  const answer = await fetch(`/sessions/${encodeURIComponent(name)}.zip`, { headers: { Authorization: `Bearer ${token()}` } });
  if (!answer.ok) throw new Error((await answer.text()).trim());
  return answer.blob();
}

/**
 * Ask for the raw traces of a session that have come since the last answer (`after`: its `next`): [status, frame]. The
 * status is 200, 204 where there are none yet, another where there are none for this page.
 */
export async function fetchTraces(session, after) {
  const query = after === undefined ? "" : `?after=${after}`;
  const answer = await fetch(`/sessions/${encodeURIComponent(session)}/traces${query}`, { headers: { Authorization: `Bearer ${token()}` } });
  return [answer.status, answer.status === 200 ? await answer.json() : null];
}

/** Ask how far a presentation on the display's own machine is; null where there is none, or not for this page. */
export async function fetchExperiment() {
  const answer = await fetch("/experiment", { headers: { Authorization: `Bearer ${token()}` } });
  return answer.status === 200 ? answer.json() : null;
}

/** Note something of a session, `ago` seconds ago: a marker on LSL, a line in the archive; raises with the server's words. */
export async function postNote(session, words, ago) {
  const headers = { Authorization: `Bearer ${token()}`, "Content-Type": "application/json" };
  const answer = await fetch("/note", { method: "POST", headers, body: JSON.stringify({ session, text: words, ago }) });
  if (!answer.ok) throw new Error((await answer.text()).trim());
}

/**
 * Keep a connection to the server: `on.note(object)`, `on.frame(header, pictures)`, and `on.link(change)` with what
 * changed of `connected`, `denied` (the token is wrong) and `ended` (the server has said goodbye).
 */
export function connect(on) {
  const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/socket`;
  let wait = 250;
  const open = () => {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      socket.send(JSON.stringify({ token: token() }));
      wait = 250;
      on.link({ connected: true, denied: false, ended: false });
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") on.note(JSON.parse(data));
      else on.frame(...unpack(data));
    };
    socket.onclose = ({ code }) => {
      on.link({ connected: false, denied: code === 4401, ...(code === 1001 ? { ended: true } : {}) });
      if (code === 4401) return;
      setTimeout(open, wait * (0.5 + Math.random() / 2));
      wait = Math.min(2 * wait, 5000);
    };
  };
  open();
}
