// The settings, in the form, in the model and in the address, so that a link brings them back.
const app = makeTrainer(),
  $ = id => document.getElementById(id),
  form = $("form");
const STEPS = {
  klWeight: [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 4, 8, 20, 50],
  rate: [0.0001, 0.0003, 0.0005, 0.001, 0.002, 0.005, 0.01],
  floor: [0.00113, 0.003, 0.01, 0.03, 0.1, 0.2],
  beta: [0, 0.25, 0.5, 0.75, 1]
};
const CHOICES = {latents: [2, 3, 4, 5, 6, 7, 8], hidden: [16, 32, 64, 128, 256]};
const FRESH = ["likelihood", "posterior", "latents", "hidden", "activation", "seed", "without"]; // these begin a new
// training
const options = {...app.PLAIN};
const digits = Array.from({length: 10}, (_, d) => d);
for (const [name, values] of Object.entries(CHOICES))
  for (const value of values) form[name].add(new Option(value, value));
for (const [name, values] of Object.entries(STEPS))
  Object.assign(form[name], {min: 0, max: values.length - 1, step: 1});
const boxes = document.createElement("div");
for (const d of digits)
  boxes.insertAdjacentHTML("beforeend", `<label><input type="checkbox" name="without" value="${d}">${d}</label>`);
$("digits").append(boxes);

const noisy = () => ["imagewise", "pixelwise"].includes(options.likelihood); // σ depends on the image
const numeric = name => typeof app.PLAIN[name] === "number";
const allowed = (name, text) => {
  // a setting from an address: one of those that the form offers, or nothing
  if (name === "without")
    return text === ""
      ? []
      : text
          .split(".")
          .map(Number)
          .filter(d => digits.includes(d))
          .slice(0, 9);
  const value = numeric(name) ? Number(text) : text;
  if (name === "seed") return Number.isInteger(value) && value >= 0 && value < 1e4 ? value : undefined;
  const known = STEPS[name] ?? Array.from(form[name].options, o => (numeric(name) ? Number(o.value) : o.value));
  return known.includes(value) ? value : undefined;
};
const readAddress = () => {
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    if (!Object.hasOwn(app.PLAIN, name)) continue;
    const value = allowed(name, text);
    if (value !== undefined) options[name] = value;
  }
};
const writeAddress = () => {
  const changed = Object.keys(app.PLAIN).filter(name => String(options[name]) !== String(app.PLAIN[name]));
  const text = changed
    .map(name => `${name}=${name === "without" ? options.without.join(".") : options[name]}`)
    .join("&");
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
};
const showSettings = () => {
  for (const name of Object.keys(app.PLAIN)) {
    if (name === "without") for (const box of form.without) box.checked = options.without.includes(Number(box.value));
    else if (STEPS[name]) {
      const input = form[name],
        text = String(options[name]);
      input.value = Math.max(0, STEPS[name].indexOf(options[name]));
      input.setAttribute("aria-valuetext", text);
      input.parentElement.querySelector("output").textContent = text;
    } else form[name].value = options[name];
  }
  form.floor.disabled = options.likelihood === "bernoulli";
  form.beta.disabled = !noisy();
  $("hint").textContent =
    options.beta && options.klWeight > 0.5
      ? "The β-NLL makes the reconstruction smaller. A KL weight near σ^2β, such as 0.1, suits it."
      : "";
};
const readForm = name => {
  if (name === "without")
    return Array.from(form.without)
      .filter(box => box.checked)
      .map(box => Number(box.value));
  if (STEPS[name]) return STEPS[name][form[name].valueAsNumber];
  if (name === "seed") return Math.min(9999, Math.max(0, Math.round(Number(form.seed.value) || 0)));
  return numeric(name) ? Number(form[name].value) : form[name].value;
};
