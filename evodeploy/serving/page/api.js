// Shows this server's own OpenAPI document.

function element(name, text, ...children) {
  const made = document.createElement(name);
  if (text) made.textContent = text;
  made.append(...children);
  return made;
}

const document_ = await (await fetch("openapi.json")).json();
document.getElementById("title").textContent = document_.info.title;
document.getElementById("model").textContent = document_.info.description;
for (const [path, methods] of Object.entries(document_.paths)) {
  for (const [method, operation] of Object.entries(methods)) {
    const card = element("section", "", element("h2", "", element("code", `${method.toUpperCase()} ${path}`)));
    card.className = "path";
    card.append(element("p", operation.description));
    const parameters = (operation.parameters ?? []).map((p) => `${p.name} (in the ${p.in}${p.required ? ", needed" : ""})`);
    if (parameters.length) card.append(element("p", `Parameters: ${parameters.join(", ")}`));
    const body = Object.keys(operation.requestBody?.content ?? {});
    if (body.length) card.append(element("p", `Body: ${body.join(", ")}`));
    const answers = Object.entries(operation.responses).map(([code, answer]) => `${code} ${answer.description}`);
    card.append(element("p", `Answers: ${answers.join("; ")}`));
    document.getElementById("paths").append(card);
  }
}
