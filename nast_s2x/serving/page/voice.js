// The translated voice.
import { RATE } from "./session.js";

// Browsers start a context only after a click, and may let this wait for ever.
export function wake(context) {
  context.resume().catch((error) => {
    if (context.state !== "closed") throw error;
  });
}

export class Voice {
  // To be called by a click: without one, browsers keep a context silent.
  constructor(report) {
    this.context = new AudioContext({ sampleRate: RATE });
    this.done = new Promise((resolve) => {
      this.finish = resolve;
    });
    this.report = report;
    wake(this.context);
  }

  async open() {
    await this.context.audioWorklet.addModule("/page/player-worklet.js");
    this.node = new AudioWorkletNode(this.context, "player", { numberOfInputs: 0, outputChannelCount: [1] });
    this.node.port.onmessage = ({ data }) => {
      this.report(data);
      if (data.isDone) this.finish();
    };
    this.node.connect(this.context.destination);
  }

  play(samples) {
    this.node.port.postMessage({ samples });
  }

  // Resolves when everything was played.
  async end() {
    this.node?.port.postMessage({ isLast: true });
    await this.done;
    this.abort();
  }

  abort() {
    this.finish();
    if (this.context.state !== "closed") this.context.close();
  }
}
