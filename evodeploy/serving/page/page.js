// Sends images to /v1/predict and lists the answers. Draws over each image what every selection kept.

const AT_ONCE = 4; // requests at the same time
const MOST = 100; // images chosen at once: for folders there is `evodeploy predict`
const PIXELS = 240; // per side of a drawn image
const DIM = "rgba(90, 94, 104, 0.7)"; // drawn over patches that a selection did not keep

const at = (id) => document.getElementById(id);
const [form, file, drop, status, token, list] = ["form", "file", "drop", "status", "token", "list"].map(at);
const [ratio, chosen, automatic, copy, sample, clear] = ["ratio", "chosen", "automatic", "copy", "sample", "clear"].map(at);
let facts = null;
let entries = []; // { picture, card, turn, failed, sample }, the newest first
let latest = 0; // the newest round of requests: only its summary is shown
let moved = false; // whether the slider was moved

const percent = (share, digits = 0) => `${(share * 100).toFixed(digits)}\u00a0%`; // not split over two lines
const shares = (ratios) => (new Set(ratios).size === 1 ? ratios.slice(0, 1) : ratios).map((each) => percent(each)).join(", ");

function say(text, wrong = false) {
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
}

async function asked(path, options = {}) {
  const headers = token.value ? { Authorization: `Bearer ${token.value}` } : {};
  const response = await fetch(path, { ...options, headers });
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401 && at("access").hidden) {
    at("access").hidden = false;
    token.focus();
  }
  if (!response.ok) throw new Error(answer.error ?? `the server answered ${response.status}`);
  return answer;
}

// The smallest and the largest share that all stages take, in whole per cent as shown and sent: 0.55 * 100 is above 55.
function wholePercents(stages) {
  const least = stages.map(([low]) => Math.ceil(low * 100 - 1e-6));
  const most = stages.map(([, high]) => Math.floor(high * 100 + 1e-6));
  return [Math.max(...least), Math.min(...most)];
}

async function introduce() {
  const title = (await (await fetch("openapi.json")).json()).info.title.replace("evodeploy: ", "");
  facts = (await asked(`v2/models/${encodeURIComponent(title)}`)).parameters;
  const [least, most] = wholePercents(facts.elastic);
  if (facts.elastic.length && least <= most && at("budget").hidden) { // once: otherwise sending the form would reset the choice
    [ratio.min, ratio.max, ratio.value] = [least / 100, most / 100, facts.keep_ratios[0]];
    automatic.checked = facts.target !== null;
    at("choice").hidden = facts.target === null;
    at("budget").hidden = false;
    showRatio();
  }
  const ratios = facts.target ? facts.target.keep_ratios.map((each) => percent(each)).join(" to ") : shares(facts.keep_ratios);
  const within = facts.target ? `, to answer within ${facts.target.milliseconds} ms` : "";
  const kept = facts.keep_ratios.length ? `; keeps ${ratios} of the tokens${within}` : "";
  at("model").textContent = `${facts.model}, ${facts.image_size} pixels, ${facts.precision.toUpperCase()}${kept}`;
  say("");
}

// The part of the image that the network sees: the centre, with the same share that the server crops after resizing.
function crop({ width, height }) {
  const share = facts ? facts.image_size / facts.resized : 1;
  const short = Math.min(width, height);
  const [across, down] = facts?.crop_mode === "squash" ? [width, height] : [short, short];
  return [(width - across * share) / 2, (height - down * share) / 2, across * share, down * share];
}

function paint(canvas, bitmap, kept, grid) {
  canvas.width = canvas.height = PIXELS;
  const pen = canvas.getContext("2d");
  if (bitmap) pen.drawImage(bitmap, ...crop(bitmap), 0, 0, PIXELS, PIXELS);
  if (!kept) return;
  const step = PIXELS / grid;
  const stay = new Set(kept);
  for (let position = 0; position < grid * grid; position++) {
    const [x, y] = [(position % grid) * step, Math.floor(position / grid) * step];
    if (stay.has(position)) {
      pen.strokeStyle = "rgba(255, 255, 255, 0.8)";
      pen.strokeRect(x + 0.5, y + 0.5, step - 1, step - 1);
    } else {
      pen.fillStyle = DIM;
      pen.fillRect(x, y, step, step);
    }
  }
}

function entryOf(picture, isSample) {
  const card = at("card").content.cloneNode(true).firstElementChild;
  card.querySelector("h3").textContent = picture.name;
  return { picture, card, turn: 0, failed: false, sample: isSample };
}

function labelled({ name, probability }) {
  const item = document.createElement("li");
  const [word, number] = [document.createElement("span"), document.createElement("span")];
  item.style.setProperty("--share", `${probability * 100}%`);
  word.textContent = name;
  number.textContent = percent(probability, 1);
  number.className = "number";
  item.append(word, number);
  return item;
}

function mapped(bitmap, { side, kept }, index) {
  const figure = document.createElement("figure");
  const [canvas, caption] = [document.createElement("canvas"), document.createElement("figcaption")];
  const words = `Selection ${index + 1}: ${kept.length} of ${side ** 2} tokens kept`;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", words);
  caption.textContent = words;
  paint(canvas, bitmap, kept, side);
  figure.append(canvas, caption);
  return figure;
}

function show({ picture, card }, answer, bitmap, milliseconds) {
  const of = (selector) => card.querySelector(selector);
  const seen = of(".seen");
  seen.hidden = !bitmap;
  seen.setAttribute("aria-label", `${picture.name} as the network sees it`);
  paint(seen, bitmap);
  const kept = answer.keep_ratios.length ? `, keeping ${shares(answer.keep_ratios)} of the tokens` : "";
  of(".facts").textContent = `in ${milliseconds} ms${kept}`;
  of(".facts").classList.remove("wrong");
  of(".labels").replaceChildren(...answer.labels.map(labelled));
  of(".maps").replaceChildren(...answer.selections.map((selection, index) => mapped(bitmap, selection, index)));
  if (answer.selections.length) at("explained").hidden = false;
}

function refuse({ card }, reason) {
  card.querySelector(".seen").hidden = true;
  card.querySelector(".facts").textContent = reason;
  card.querySelector(".facts").classList.add("wrong");
  for (const part of [".labels", ".maps"]) card.querySelector(part).replaceChildren();
}

async function ask(entry) {
  const turn = ++entry.turn; // an answer to an older request is not shown
  try {
    const began = performance.now();
    const answer = await asked(endpoint(), { method: "POST", body: entry.picture });
    const milliseconds = Math.round(performance.now() - began);
    const bitmap = await createImageBitmap(entry.picture, { imageOrientation: "from-image" }).catch(() => null);
    if (turn !== entry.turn) return "";
    entry.failed = false;
    show(entry, answer, bitmap, milliseconds);
    bitmap?.close(); // it takes as much memory as the image
    const [best] = answer.labels;
    return `${entry.picture.name}: ${best.name}, ${percent(best.probability, 1)}, ${entry.card.querySelector(".facts").textContent}`;
  } catch (error) {
    if (turn !== entry.turn) return "";
    entry.failed = true;
    refuse(entry, error.message);
    return `${entry.picture.name}: ${error.message}`;
  }
}

async function askAll(asking) {
  if (!asking.length) return;
  const mine = ++latest;
  const [began, left] = [performance.now(), asking.values()];
  let said = "";
  say(`Asking about ${asking.length === 1 ? asking[0].picture.name : `${asking.length} pictures`} …`);
  showCommand(asking[0]);
  const worker = async () => {
    for (const entry of left) said = await ask(entry);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  if (mine !== latest) return;
  const seconds = (performance.now() - began) / 1000;
  const failed = asking.filter((entry) => entry.failed).length;
  const refused = failed ? `, ${failed} of them not answered` : "";
  if (asking.length > 1) said = `${asking.length} pictures in ${seconds.toFixed(2)} s, ${(asking.length / seconds).toFixed(1)} a second${refused}`;
  say(said, failed > 0);
}

function add(pictures, isSample = false) {
  if (pictures.length > MOST) {
    say(`${pictures.length} pictures are more than this page takes at once, ${MOST}: use evodeploy predict`, true);
    return;
  }
  const added = [...pictures].map((picture) => entryOf(picture, isSample));
  entries = [...added, ...entries].slice(0, MOST);
  list.replaceChildren(...entries.map((entry) => entry.card));
  at("answers").hidden = !entries.length;
  askAll(added);
}

// Without a target the model uses its default ratios, one for each stage, until the slider is moved.
const asksRatio = () => !at("budget").hidden && !automatic.checked && (moved || facts.target !== null);
const endpoint = () => (asksRatio() ? `v1/predict?keep_ratio=${ratio.value}` : "v1/predict");

function showRatio() {
  ratio.disabled = automatic.checked;
  chosen.textContent = automatic.checked ? "" : asksRatio() ? percent(ratio.value) : shares(facts.keep_ratios);
}

// Quotes text as one word for a shell.
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

function showCommand({ picture, sample: isSample }) {
  const from = isSample ? `curl --silent ${quoted(new URL("sample.png", location).href)} | ` : "";
  const data = isSample ? "@-" : quoted(`@${picture.name}`);
  const access = token.value ? ' --header "Authorization: Bearer $EVODEPLOY_TOKEN"' : "";
  at("curl").textContent = `${from}curl --data-binary ${data}${access} ${quoted(new URL(endpoint(), location).href)}`;
  at("command").hidden = false;
}

file.addEventListener("change", () => {
  add(file.files);
  file.value = ""; // so that the same image can be chosen again
});
form.addEventListener("submit", (event) => {
  event.preventDefault();
  introduce().then(() => askAll(entries.filter((entry) => entry.failed)), (error) => say(error.message, true));
});
sample.addEventListener("click", async () => {
  const bytes = await (await fetch("sample.png")).blob();
  add([new File([bytes], "sample.png", { type: bytes.type })], true);
});
ratio.addEventListener("input", () => {
  moved = true;
  showRatio();
});
ratio.addEventListener("change", () => askAll(entries));
automatic.addEventListener("change", () => {
  showRatio();
  askAll(entries);
});
copy.addEventListener("click", () => {
  getSelection().selectAllChildren(at("curl"));
  const copied = navigator.clipboard?.writeText(at("curl").textContent) ?? Promise.reject(); // missing without HTTPS
  copied.then(() => say("Copied"), () => say("The line is selected: copy it with Ctrl+C"));
});
clear.addEventListener("click", () => {
  latest += 1;
  entries = [];
  list.replaceChildren();
  for (const part of ["answers", "command"]) at(part).hidden = true;
  say("");
  file.focus();
});
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault(); // otherwise the browser leaves the page for an image dropped next to the field
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop") add(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => event.clipboardData.files.length && add(event.clipboardData.files));
introduce().catch((error) => say(error.message, true));
