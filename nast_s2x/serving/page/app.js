// The page: settings, start and stop, captions, figures.
import { Captions } from "./captions.js";
import { RATE, Session } from "./session.js";
import { Microphone, Recording, Refusal } from "./sources.js";
import { Voice } from "./voice.js";

const TOKEN = "nast_s2x.token"; // in the storage of this tab

const byId = (id) => document.getElementById(id);
const STATES = {
  loading: "loading",
  idle: "ready",
  starting: "starting",
  running: "translating",
  stopping: "finishing",
};
const LABELS = { running: "Stop", stopping: "Stop now", starting: "Starting…" };

let health = null;
let run = null; // what is open now

function show(state) {
  document.body.dataset.state = state;
  byId("state").textContent = STATES[state];
  byId("start").textContent = LABELS[state] ?? "Start";
  byId("start").ariaDisabled = state === "loading" || state === "starting"; // a disabled button would lose the focus
  for (const field of document.querySelectorAll("#controls input, #controls select")) field.disabled = state !== "idle";
}

function tell(problem) {
  byId("error").textContent = problem;
}

// Whatever goes wrong in this page is shown.
function fail(error) {
  if (!(error instanceof Refusal)) console.error(error);
  tell(error instanceof Refusal ? error.message : `A fault of this page: ${error?.message ?? error}`);
}

function name(code) {
  try {
    return new Intl.DisplayNames(["en"], { type: "language" }).of(code);
  } catch {
    return code;
  }
}

function fit() {
  const origin = document.querySelector("[name=origin]:checked").value;
  const isShown = {
    file: origin === "file",
    microphone: origin === "microphone",
    voice: health?.voice && isSecureContext, // worklets are for secure pages only
    transcript: health ? health.transcript !== false : false,
    token: health?.needs_token,
  };
  for (const [kind, is] of Object.entries(isShown)) {
    for (const element of document.querySelectorAll(`.of-${kind}`)) element.classList.toggle("is-hidden", !is);
  }
  showChunk();
}

function showChunk() {
  const chosen = health?.chunks[byId("chunk").selectedIndex];
  byId("chunk-now").textContent = chosen ? `${chosen.chunk_ms} + ${chosen.lookahead_ms} ms` : "–";
}

async function load() {
  const answer = await fetch("/health").catch(() => null);
  if (!answer) throw new Refusal("The server does not answer. Reload this page when it runs.");
  health = await answer.json();
  const { source_lang: source, target_lang: target } = health;
  if (source && target) byId("languages").textContent = `${name(source)} to ${name(target)}`;
  if (source) byId("source").lang = source;
  if (target) byId("target").lang = target;
  const sizes = health.chunks.map(({ chunk_ms: size }) => new Option(`${size} ms`, size));
  byId("chunk").replaceChildren(...sizes);
  byId("transcribe").checked = health.transcript === true; // false where nobody knows whether it is any good
  byId("token").value = sessionStorage.getItem(TOKEN) ?? "";
  if (health.example) byId("example").textContent = `An example model. It knows only: ${health.example}.`;
  fit();
  show("idle");
}

async function start() {
  tell("");
  show("starting");
  const captions = { source: new Captions(byId("source")), target: new Captions(byId("target")) };
  for (const id of ["heard", "spoken"]) byId(id).textContent = "0.0 s";
  byId("gaps").textContent = "0";
  byId("delay").textContent = "–";
  const current = { isFast: false };
  run = current;
  try {
    const hasVoice = health.voice && isSecureContext && byId("voice").checked;
    if (hasVoice) current.voice = new Voice(showVoice); // first, while the click still counts
    const isFile = document.querySelector("[name=origin]:checked").value === "file";
    current.isFast = isFile && byId("speed").value === "fast";
    current.source = isFile
      ? await Recording.open(byId("file").files[0], current.isFast)
      : await Microphone.open(byId("headphones").checked);
    await current.voice?.open();
    current.session = connect(current, captions, hasVoice);
    if (await current.session.opened) begin(current);
  } catch (error) {
    current.source?.abort();
    current.voice?.abort();
    current.session?.abort();
    fail(error);
    show("idle");
  }
}

function connect(current, captions, hasVoice) {
  const token = byId("token").value.trim();
  if (token) sessionStorage.setItem(TOKEN, token);
  const isTranscribed = health.transcript !== false && byId("transcribe").checked;
  const settings = {
    input: { chunk_ms: Number(byId("chunk").value), transcription: isTranscribed ? { model: health.model } : null },
    output: { voice: Boolean(hasVoice) },
  };
  const hear = (kind) => (text, ms) => {
    captions[kind].add(text, ms);
    if (!current.isFast) byId("delay").textContent = `${current.session.delay(ms).toFixed(2)} s`;
  };
  return new Session(token, settings, {
    source: hear("source"),
    target: hear("target"),
    voice: (samples) => current.voice?.play(samples),
    closed: (problem) => finish(current, problem).catch(fail),
  });
}

function begin(current) {
  const { source, session } = current;
  show("running");
  const take = (samples) => {
    session.append(samples);
    byId("heard").textContent = `${(session.sent / RATE).toFixed(1)} s`;
    let peak = 0;
    for (const sample of samples) peak = Math.max(peak, Math.abs(sample));
    byId("level").value = Math.sqrt(peak / 32768); // speech of usual loudness in the middle
  };
  const ended = (problem) => {
    byId("level").value = 0;
    if (problem) tell(problem);
    if (run === current) show("stopping");
    session.close();
  };
  source.start(take, ended, () => session.waiting);
}

// The connection has ended; what is left of the voice is played.
async function finish(current, problem) {
  current.source?.abort();
  byId("level").value = 0;
  if (problem) tell(problem);
  if (run === current) show("stopping");
  await current.voice?.end();
  if (run === current) show("idle");
}

function stop() {
  const isSecond = document.body.dataset.state === "stopping";
  if (!isSecond) {
    show("stopping");
    run.source.stop();
    return;
  }
  run.session.abort();
  run.voice?.abort();
}

function showVoice({ seconds, gaps }) {
  byId("spoken").textContent = `${seconds.toFixed(1)} s`;
  byId("gaps").textContent = gaps;
}

addEventListener("error", ({ error, message }) => fail(error ?? message));
addEventListener("unhandledrejection", ({ reason }) => fail(reason));
byId("controls").addEventListener("submit", (event) => {
  event.preventDefault();
  const { state } = document.body.dataset;
  if (state === "idle") start();
  else if (state === "running" || state === "stopping") stop();
});
byId("origin").addEventListener("change", fit);
byId("chunk").addEventListener("change", showChunk);
show("loading");
load().catch(fail);
