// Shows this server's OpenAPI document: the requests and answers of each endpoint, and sample commands for it.

const here = new URL("./", location).href.replace(/\/$/, "");

function element(name, words, ...children) {
  const made = document.createElement(name);
  if (words) made.textContent = words;
  made.append(...children);
  return made;
}

// Text with `code` between backticks.
function prose(name, words) {
  return element(name, "", ...words.split("`").map((part, index) => (index % 2 ? element("code", part) : part)));
}

// Outlines the JSON that a schema describes.
function outline(schema, indent = "") {
  const inner = `${indent}  `;
  if (schema.anyOf) return schema.anyOf.filter((each) => each.type !== "null").map((each) => outline(each, indent)).join(" or ");
  if (schema.properties) {
    const lines = Object.entries(schema.properties).map(([key, value]) => {
      const optional = schema.required?.includes(key) ? "" : "?";
      return `${inner}"${key}"${optional}: ${outline(value, inner)}${value.description ? `  # ${value.description}` : ""}\n`;
    });
    return `{\n${lines.join("")}${indent}}`;
  }
  if (schema.type === "array") return Object.keys(schema.items ?? {}).length ? `[${outline(schema.items, indent)}, …]` : "[…]";
  if (schema.type === "object") return "{…}";
  return schema.format === "binary" ? "bytes" : schema.type ?? "any";
}

// Long lines scroll, also by keyboard.
function code(words, label) {
  const made = element("pre", "", element("code", words));
  made.tabIndex = 0;
  made.setAttribute("role", "region");
  made.setAttribute("aria-label", label);
  return made;
}

function media(title, content = {}) {
  return Object.entries(content).flatMap(([kind, { schema = {} }]) => {
    const about = `${title}, ${kind}`;
    return schema.properties ? [element("h3", about), code(outline(schema), about)] : [element("h3", `${about}: ${outline(schema)}`)];
  });
}

function described(path, method, operation) {
  const card = element("section", "", element("h2", "", element("code", `${method.toUpperCase()} ${path}`)));
  card.className = "path";
  card.append(...(operation.description ?? "").split("\n\n").map((part) => prose("p", part)));
  const parameters = (operation.parameters ?? []).map(({ name, schema, required, in: where }) =>
    element("li", "", element("code", name), `: ${outline(schema)}, in the ${where}${required ? ", needed" : ""}`));
  if (parameters.length) card.append(element("h3", "Parameters"), element("ul", "", ...parameters));
  card.append(...media("Body", operation.requestBody?.content));
  const { 200: answer, ...refusals } = operation.responses;
  card.append(...media("Answer", answer?.content));
  for (const { label, source } of operation["x-codeSamples"] ?? []) {
    const title = label ? `Sample: ${label[0].toLowerCase()}${label.slice(1)}` : "Sample";
    const sample = code(source.replaceAll("SERVER", here), title);
    sample.className = "sample";
    card.append(element("h3", title), sample);
  }
  const codes = Object.keys(refusals);
  const list = element("ul", "", ...codes.map((each) => element("li", `${each}: ${refusals[each].description}`)));
  if (codes.length) card.append(element("details", "", element("summary", `Refusals: ${codes.join(", ")}`), list));
  return card;
}

const document_ = await (await fetch("openapi.json")).json();
document.getElementById("title").textContent = document_.info.title;
document.getElementById("model").textContent = document_.info.description;
for (const [path, methods] of Object.entries(document_.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    document.getElementById("paths").append(described(path, method, operation));
  }
}
