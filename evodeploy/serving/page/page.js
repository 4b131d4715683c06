// Sends a picture to /v1/predict and shows the answer; draws over the picture what each selection kept.

const at = (id) => document.getElementById(id);
const [form, file, drop, status, token] = ["form", "file", "drop", "status", "token"].map(at);
let facts = null;
let latest = 0; // the newest request: an older answer that comes late is not shown

function headers() {
  return token.value ? { Authorization: `Bearer ${token.value}` } : {};
}

function say(text, wrong = false) {
  status.textContent = text;
  status.classList.toggle("wrong", wrong);
}

async function asked(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...headers(), ...options.headers } });
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) {
    at("access").hidden = false;
    token.focus();
  }
  if (!response.ok) throw new Error(answer.error ?? `the server answered ${response.status}`);
  return answer;
}

async function introduce() {
  const name = new URL("openapi.json", location);
  const title = (await (await fetch(name)).json()).info.title.replace("evodeploy: ", "");
  facts = (await asked(`v2/models/${encodeURIComponent(title)}`)).parameters;
  const ratios = facts.keep_ratios.map((ratio) => `${Math.round(ratio * 100)} %`).join(", ");
  at("model").textContent = `${facts.model}, ${facts.image_size} pixels, ${facts.precision.toUpperCase()}; keeps ${ratios} of the tokens`;
}

// The centre that the network sees: the shorter side resized to 8/7 of the size, and the middle cut out.
function crop(bitmap, size) {
  const side = Math.min(bitmap.width, bitmap.height) * (size / Math.floor((256 / 224) * size));
  return [(bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side];
}

function paint(canvas, bitmap, kept, grid) {
  const pixels = 480;
  canvas.width = canvas.height = pixels;
  const pen = canvas.getContext("2d");
  pen.drawImage(bitmap, ...crop(bitmap, facts?.image_size ?? 224), 0, 0, pixels, pixels);
  if (!kept) return;
  const step = pixels / grid;
  const stay = new Set(kept);
  const faded = getComputedStyle(document.documentElement).getPropertyValue("--faded");
  for (let position = 0; position < grid * grid; position++) {
    const [x, y] = [(position % grid) * step, Math.floor(position / grid) * step];
    if (stay.has(position)) {
      pen.strokeStyle = "rgba(255, 255, 255, 0.8)";
      pen.strokeRect(x + 0.5, y + 0.5, step - 1, step - 1);
    } else {
      pen.fillStyle = `rgba(${faded}, 0.86)`;
      pen.fillRect(x, y, step, step);
    }
  }
}

function show(answer, bitmap) {
  at("labels").replaceChildren(...answer.labels.map((label) => {
    const item = document.createElement("li");
    item.style.setProperty("--share", `${label.probability * 100}%`);
    const [name, number] = [document.createElement("span"), document.createElement("span")];
    name.textContent = label.name;
    number.textContent = `${(label.probability * 100).toFixed(1)} %`;
    number.className = "number";
    item.append(name, number);
    return item;
  }));
  paint(at("canvas"), bitmap);
  at("caption").textContent = "as the network sees it";
  at("maps").replaceChildren(...answer.selections.map(({ side, kept }, index) => {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption");
    const told = `Selection ${index + 1}: ${kept.length} of ${side ** 2} tokens stayed`;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", told);
    caption.textContent = told;
    paint(canvas, bitmap, kept, side);
    figure.append(canvas, caption);
    return figure;
  }));
  at("answer").hidden = false;
  at("selections").hidden = !answer.selections.length;
}

async function predict(picture) {
  const mine = ++latest;
  say(`Asking about ${picture.name} …`);
  try {
    const answer = await asked("v1/predict", { method: "POST", body: picture });
    const bitmap = await createImageBitmap(picture, { imageOrientation: "from-image" });
    if (mine !== latest) return;
    show(answer, bitmap);
    const best = answer.labels[0];
    say(`${picture.name}: ${best.name}, ${(best.probability * 100).toFixed(1)} %`);
  } catch (error) {
    if (mine === latest) say(error.message, true);
  }
}

file.addEventListener("change", () => file.files[0] && predict(file.files[0]));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  introduce().then(() => file.files[0] && predict(file.files[0]), (error) => say(error.message, true));
});
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) predict(event.dataTransfer.files[0]);
  });
}
introduce().catch((error) => say(error.message, true));
