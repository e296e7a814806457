// Training: batches from one shuffle of the data after the other, and the numbers of held-out images.
const makeTraining = (options, train, labels) => {
  const model = makeModel(options),
    random = makeRandom(1000 + (options.seed ?? 0)),
    batch = makeBatch();
  return {model, random, batch, train, labels, order: [], at: 0, images: 0, options: {...options}};
};
const chosen = ({options, labels}) =>
  Array.from(labels.keys()).filter(i => !(options.without ?? []).includes(labels[i]));
const klWeight = ({options, images}) => options.klWeight * (options.anneal ? Math.min(1, images / options.anneal) : 1);
const trainStep = training => {
  // one batch; returns the sums of log p(x|z) and of the KL, and the number of images
  const {model, random, batch, train, options} = training;
  if (training.at >= training.order.length) {
    training.order = shuffle(chosen(training), random);
    training.at = 0;
  }
  const which = training.order.slice(training.at, (training.at += BATCH)),
    n = which.length;
  fillBatch(batch, train, which, model.likelihood === "bernoulli", random);
  for (let i = 0; i < n * model.latents; i++) model.noise[i] = random.normal();
  gradients(model, batch, n, klWeight(training));
  adam(model, options.rate);
  let logp = 0,
    kl = 0;
  for (let b = 0; b < n; b++) {
    logp += model.logp[b];
    kl += model.kl[b];
  }
  training.images += n;
  return {logp, kl, n};
};
// Of the first `count` images of some data: log p(x|z) and KL of each, and q's raw numbers. The noise is always the
// same.
const measure = (model, data, count, seed = 7, visit = null) => {
  const random = makeRandom(seed),
    batch = makeBatch(),
    logp = new Float32Array(count),
    kl = new Float32Array(count),
    q = new Float32Array(count * model.E);
  for (let from = 0; from < count; from += BATCH) {
    const n = Math.min(BATCH, count - from),
      which = Array.from({length: n}, (_, i) => from + i);
    fillBatch(batch, data, which, model.likelihood === "bernoulli", random);
    for (let i = 0; i < n * model.latents; i++) model.noise[i] = random.normal();
    forward(model, batch, n, 0);
    logp.set(model.logp.subarray(0, n), from);
    kl.set(model.kl.subarray(0, n), from);
    q.set(model.q.subarray(0, n * model.E), from * model.E);
    if (visit) visit(from, n);
  }
  return {logp, kl, q};
};
const decodeAt = (model, latents) => {
  // [z, …], at most BATCH: [{mean, sigma}, …]
  latents.forEach((z, b) => model.z.set(z, b * model.latents));
  decode(model, latents.length);
  return latents.map((_, b) => moments(model.raw, b * model.R, model.likelihood, model.w.s[0], model.floor));
};
const posteriorOf = (model, q, at = 0) => ({
  mean: Array.from(q.subarray(at, at + model.latents)),
  factor: factor(model.posterior, model.latents, q, at)
});
const mean = list => list.reduce((a, b) => a + b, 0) / list.length;
