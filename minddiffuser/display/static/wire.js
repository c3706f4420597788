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

/** Keep a connection to the server; `on.note(object)`, `on.frame(header, pictures)`, `on.link(connected, denied)`. */
export function connect(on) {
  const url = `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/socket`;
  let wait = 250;
  const open = () => {
    const socket = new WebSocket(url);
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      socket.send(JSON.stringify({ token: token() }));
      wait = 250;
      on.link(true, false);
    };
    socket.onmessage = ({ data }) => {
      if (typeof data === "string") on.note(JSON.parse(data));
      else on.frame(...unpack(data));
    };
    socket.onclose = ({ code }) => {
      on.link(false, code === 4401);
      if (code === 4401) return;
      setTimeout(open, wait * (0.5 + Math.random() / 2));
      wait = Math.min(2 * wait, 5000);
    };
  };
  open();
}
