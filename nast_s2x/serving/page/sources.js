// Where the speech comes from: a microphone or a file, as pieces of 16-bit samples.
import { RATE } from "./session.js";
import { wake } from "./voice.js";

const PIECE = RATE / 10;
const MOST_WAITING = 1 << 18; // bytes in front of the network, beyond which a fast file waits

// A problem with a sentence for the user.
export class Refusal extends Error {}

const REFUSALS = {
  NotAllowedError:
    "The microphone is blocked. Allow it for this page in the browser's address bar or settings, then press Start again.",
  NotFoundError: "There is no microphone. Connect one, then press Start again, or choose a file.",
  NotReadableError: "The microphone cannot be read. Another program may be using it: close that program, then press Start again.",
};

function checkMicrophone() {
  if (navigator.mediaDevices?.getUserMedia) return;
  const here = `http://localhost${location.port ? `:${location.port}` : ""}/`;
  throw new Refusal(
    "Browsers give a microphone only to secure pages. Open this page over https, or on the server's own machine as " +
      `${here}. A file works here too, without the voice.`,
  );
}

export class Microphone {
  // With headphones nothing has to be taken out of the microphone's signal.
  static async open(hasHeadphones) {
    checkMicrophone();
    const clean = !hasHeadphones;
    const audio = { channelCount: 1, echoCancellation: clean, noiseSuppression: clean, autoGainControl: clean };
    const microphone = new Microphone();
    try {
      microphone.stream = await navigator.mediaDevices.getUserMedia({ audio });
    } catch (error) {
      throw error.name in REFUSALS ? new Refusal(REFUSALS[error.name]) : error;
    }
    try {
      await microphone.connect();
    } catch (error) {
      microphone.abort();
      throw error;
    }
    return microphone;
  }

  async connect() {
    try {
      await this.join(new AudioContext({ sampleRate: RATE }));
    } catch (error) {
      if (error.name !== "NotSupportedError") throw error;
      // Firefox: a context must have the rate of the microphone. The worklet changes the rate.
      await this.context.close();
      await this.join(new AudioContext());
    }
  }

  async join(context) {
    this.context = context;
    const input = context.createMediaStreamSource(this.stream);
    await context.audioWorklet.addModule("/page/capture-worklet.js");
    this.node = new AudioWorkletNode(context, "capture", { numberOfOutputs: 0, processorOptions: { rate: RATE } });
    input.connect(this.node); // what is said before start() waits in the port
    wake(context);
  }

  // Calls take(samples) for each piece and ended(problem) after the last one.
  start(take, ended) {
    this.node.port.onmessage = ({ data }) => {
      take(data.samples);
      if (data.isLast) {
        this.abort();
        ended(this.problem ?? "");
      }
    };
    this.stream.getAudioTracks()[0].onended = () => {
      this.problem = "The microphone was disconnected.";
      this.stop();
    };
  }

  stop() {
    this.node.port.postMessage("end");
  }

  abort() {
    for (const track of this.stream.getTracks()) track.stop();
    if (this.context && this.context.state !== "closed") this.context.close();
  }
}

export class Recording {
  static async open(file, isFast) {
    if (!file) throw new Refusal("Choose a file first.");
    const recording = new Recording();
    recording.isFast = isFast;
    try {
      // The context's rate is that of the decoded samples.
      const decoded = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await file.arrayBuffer());
      recording.samples = mono(decoded);
    } catch (error) {
      const name = error.name === "EncodingError" ? "has no audio that this browser can decode" : "cannot be read";
      throw new Refusal(`${file.name} ${name}. Try a WAV, FLAC, MP3 or Ogg file.`);
    }
    return recording;
  }

  start(take, ended, waiting) {
    const begun = performance.now();
    let place = 0;
    const next = () => {
      if (this.isAborted) return;
      const due = this.isFast ? Infinity : ((performance.now() - begun) / 1000) * RATE;
      while (!this.isStopped && place < this.samples.length && place + PIECE <= due) {
        if (this.isFast && waiting() > MOST_WAITING) break;
        take(this.samples.subarray(place, place + PIECE));
        place += PIECE;
      }
      if (this.isStopped || place >= this.samples.length) ended("");
      else setTimeout(next, 20);
    };
    next();
  }

  stop() {
    this.isStopped = true;
  }

  abort() {
    this.isAborted = true;
  }
}

function mono(decoded) {
  const sum = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel += 1) {
    decoded.getChannelData(channel).forEach((sample, place) => {
      sum[place] += sample / decoded.numberOfChannels;
    });
  }
  return Int16Array.from(sum, (sample) => Math.round(Math.max(-1, Math.min(1, sample)) * 32767));
}
