// What is known of a model at one time: the numbers of held-out images, and σ against the true error, in bins of σ.
const BINS = 24,
  LOWEST = 1e-3; // σ from 0.001 to 1, each bin wider than the last by the same factor.
// Of black and white pixels, a bin needs some whose colour is not the likely one: the sum of their variances says
// how many to expect.
const fullReport = (model, data, labels, count = labels.length) => {
  const bins = Array.from({length: BINS}, () => ({n: 0, sigma: 0, error: 0})),
    x = new Float32Array(PIXELS);
  const found = measure(model, data, count),
    E = model.E,
    L = model.latents,
    batch = makeBatch(),
    random = makeRandom(7);
  let squares = 0,
    sigmas = 0,
    seen = 0;
  for (let from = 0; from < Math.min(count, 256); from += BATCH) {
    // at the mean of q(z|x), as `evaluate` does
    const which = Array.from({length: Math.min(BATCH, count - from)}, (_, i) => from + i);
    fillBatch(batch, data, which, model.likelihood === "bernoulli", random);
    const decoded = decodeAt(
      model,
      which.map(i => found.q.subarray(i * E, i * E + L))
    );
    decoded.forEach(({mean: m, sigma}, b) => {
      x.fill(0);
      for (let j = batch.start[b]; j < batch.start[b + 1]; j++) x[batch.place[j]] = batch.value[j];
      for (let i = 0; i < PIXELS; i++) {
        const error = (x[i] - m[i]) ** 2,
          bin =
            bins[
              Math.max(
                0,
                Math.min(BINS - 1, Math.floor(BINS * (1 - Math.log10(Math.max(sigma[i], LOWEST)) / Math.log10(LOWEST))))
              )
            ];
        bin.n++;
        bin.sigma += sigma[i] ** 2;
        bin.error += error;
        squares += error;
        sigmas += sigma[i];
      }
      seen += PIXELS;
    });
  }
  return {
    ...found,
    labels: labels.subarray(0, count),
    rmse: Math.sqrt(squares / seen),
    sigma: sigmas / seen,
    bins: bins
      .filter(b => b.n > 20 && (model.likelihood !== "bernoulli" || b.sigma > 5))
      .map(b => ({n: b.n, sigma: Math.sqrt(b.sigma / b.n), error: Math.sqrt(b.error / b.n)}))
  };
};
