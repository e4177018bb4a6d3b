// A session of the Realtime translation protocol.

export const RATE = 24000; // of samples in both directions, Hz

const CLOSE_SECONDS = 20; // longest time between the request to close and the end

function toBase64(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = "";
  for (let start = 0; start < bytes.length; start += 8192) {
    text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return btoa(text);
}

function fromBase64(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  return Float32Array.from(new Int16Array(bytes.buffer), (value) => value / 32768);
}

// Calls handlers.source(text, ms), target(text, ms), voice(samples) with deltas, and closed(problem) once, at the end.
export class Session {
  constructor(token, settings, handlers) {
    this.handlers = handlers;
    this.sent = 0; // samples
    this.times = []; // [ms of the source up to the end of a piece, time when it was sent]
    this.isOpen = this.isClosing = this.isClosed = this.isAborted = false;
    this.problem = "";
    const address = new URL("/v1/realtime/translations", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    if (token) address.searchParams.set("token", token);
    this.socket = new WebSocket(address);
    this.opened = new Promise((resolve) => {
      this.socket.onopen = () => this.send("session.update", { session: { audio: settings } });
      this.socket.onmessage = ({ data }) => this.receive(JSON.parse(data), resolve);
      this.socket.onclose = ({ code, reason }) => {
        this.end(code, reason);
        resolve(false);
      };
    });
  }

  receive(event, resolve) {
    const { handlers } = this;
    if (event.type === "session.updated") {
      this.isOpen = true;
      resolve(true);
    } else if (event.type === "session.input_transcript.delta") {
      handlers.source(event.delta, event.source_ms);
    } else if (event.type === "session.output_transcript.delta") {
      handlers.target(event.delta, event.source_ms);
    } else if (event.type === "session.output_audio.delta") {
      handlers.voice(fromBase64(event.delta));
    } else if (event.type === "session.closed") {
      this.isClosed = true;
    } else if (event.type === "error") {
      this.problem = `The server says: ${event.error.message}.`;
      if (!this.isOpen) this.socket.close();
    }
  }

  end(code, reason) {
    clearTimeout(this.timer);
    let problem = this.isAborted ? "" : this.problem;
    if (this.isAborted) {
      this.isOpen = false;
    } else if (!problem && !this.isOpen) {
      problem =
        "The server did not accept the connection. It may be stopping, the token may be wrong, or without a token " +
        "only browsers on the server's own machine may connect.";
    } else if (!problem && code === 1001) {
      problem = `The session has ended: ${reason || "the server is stopping"}.`;
    } else if (!problem && !(this.isClosing && this.isClosed)) {
      problem = `The connection was lost (${[code, reason].filter(Boolean).join(", ")}). Press Start to begin again.`;
    }
    this.isOpen = false;
    this.handlers.closed(problem);
  }

  send(type, values = {}) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type, ...values }));
  }

  // Gives samples, an Int16Array, to the server.
  append(samples) {
    if (!samples.length || this.isClosing) return;
    this.sent += samples.length;
    this.times.push([(1000 * this.sent) / RATE, performance.now()]);
    this.send("session.input_audio_buffer.append", { audio: toBase64(samples) });
  }

  // Seconds since the audio was sent that an event at `ms` of the source needed.
  delay(ms) {
    while (this.times.length > 1 && this.times[0][0] < ms) this.times.shift();
    return this.times.length ? (performance.now() - this.times[0][1]) / 1000 : 0;
  }

  // Bytes that the network has not taken yet.
  get waiting() {
    return this.socket.bufferedAmount;
  }

  // No more audio: the server sends the rest and closes.
  close() {
    if (this.isClosing) return;
    this.isClosing = true;
    this.send("session.close");
    this.timer = setTimeout(() => {
      this.problem = `The server did not end the session within ${CLOSE_SECONDS} s.`;
      this.socket.close();
    }, 1000 * CLOSE_SECONDS);
  }

  abort() {
    this.isClosing = this.isAborted = true;
    this.socket.close();
  }
}
