// Sends a picture to /v1/predict and shows the answer; draws over the picture what each selection kept.

const at = (id) => document.getElementById(id);
const [form, file, drop, status, token] = ["form", "file", "drop", "status", "token"].map(at);
const [ratio, chosen, copy] = ["ratio", "chosen", "copy"].map(at);
let facts = null;
let shown = null; // the picture that was asked about last
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
  if (facts.elastic.length) {
    ratio.min = Math.max(...facts.elastic.map(([low]) => Math.ceil(low * 100) / 100));
    ratio.max = Math.min(...facts.elastic.map(([, high]) => high));
    ratio.value = facts.keep_ratios[0];
    at("budget").hidden = false;
    tellRatio();
  }
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

function tellRatio() {
  chosen.textContent = `${Math.round(ratio.value * 100)} %`;
}

function endpoint() {
  return at("budget").hidden ? "v1/predict" : `v1/predict?keep_ratio=${ratio.value}`;
}

// A file's name within single quotes, as a shell reads it.
function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

async function predict(picture) {
  const mine = ++latest;
  shown = picture;
  say(`Asking about ${picture.name} …`);
  try {
    const began = performance.now();
    const answer = await asked(endpoint(), { method: "POST", body: picture });
    const took = Math.round(performance.now() - began);
    const bitmap = await createImageBitmap(picture, { imageOrientation: "from-image" });
    if (mine !== latest) return;
    show(answer, bitmap);
    const best = answer.labels[0];
    const kept = at("budget").hidden ? "" : `, keeping ${answer.keep_ratios.map((each) => `${Math.round(each * 100)} %`).join(", ")}`;
    say(`${picture.name}: ${best.name}, ${(best.probability * 100).toFixed(1)} %, in ${took} ms${kept}`);
    const access = token.value ? ' --header "Authorization: Bearer $EVODEPLOY_TOKEN"' : "";
    at("curl").textContent = `curl --data-binary ${quoted(`@${picture.name}`)}${access} ${quoted(new URL(endpoint(), location).href)}`;
    at("command").hidden = false;
  } catch (error) {
    if (mine === latest) say(error.message, true);
  }
}

file.addEventListener("change", () => file.files[0] && predict(file.files[0]));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  introduce().then(() => file.files[0] && predict(file.files[0]), (error) => say(error.message, true));
});
ratio.addEventListener("input", tellRatio);
ratio.addEventListener("change", () => shown && predict(shown));
copy.addEventListener("click", () => {
  navigator.clipboard?.writeText(at("curl").textContent).then(() => say("copied"), () => say("the browser does not let it be copied", true));
});
for (const name of ["dragover", "dragleave", "drop"]) {
  drop.addEventListener(name, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files[0]) predict(event.dataTransfer.files[0]);
  });
}
introduce().catch((error) => say(error.message, true));
