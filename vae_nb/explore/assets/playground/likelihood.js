// p(x|z). Raw numbers of an image: 784 for the mean; pixelwise 784 more for σ, imagewise one more.
const PIXELS = 784, LOG_2PI = Math.log(2 * Math.PI);
const decoderRaw = likelihood => PIXELS + (likelihood === "pixelwise" ? PIXELS : likelihood === "imagewise" ? 1 : 0);

const bernoulli = (raw, at, x, xat, scale) => { // log p(x|z); raw becomes the gradient of scale × loss
  let sum = 0, grown = 1;
  for (let i = 0; i < PIXELS; i++) {
    const l = raw[at + i], e = exp(l < 0 ? l : -l), t = 1 + e, pixel = x[xat + i];
    sum += pixel * l - (l > 0 ? l : 0);
    grown *= t; // Σ log(1 + e) is the log of a product
    if (grown > 1e250) { sum -= Math.log(grown); grown = 1; }
    raw[at + i] = scale * ((l < 0 ? e : 1) / t - pixel);
  }
  return sum - Math.log(grown);
};

const weighted = (scale, variance, beta) => // scale × σ^2β, held fixed: no gradient goes through it
  beta === 0 ? scale : beta === 0.5 ? scale * Math.sqrt(variance) : beta === 1 ? scale * variance
    : scale * exp(beta * Math.log(variance));
const slopeOf = (raw, variance) => softplus(raw) * sigmoid(raw) / variance; // d log σ / d raw

const pixelwise = (raw, at, x, xat, scale, floor, beta) => {
  const floor2 = floor * floor;
  let squares = 0, logs = 0, grown = 1; // Σ log σ² is the log of a product, too
  for (let i = 0; i < PIXELS; i++) {
    const r = raw[at + PIXELS + i], e = exp(r < 0 ? r : -r), t = 1 + e;
    const sp = (r > 0 ? r : 0) + (e < 1e-5 ? e - e * e / 2 : Math.log(t));
    const variance = floor2 + sp * sp, inverse = 1 / variance, weight = weighted(scale, variance, beta);
    grown *= variance;
    if (grown < 1e-250 || grown > 1e250) { logs += Math.log(grown); grown = 1; }
    const mean = sigmoid(raw[at + i]), error = x[xat + i] - mean, square = error * error * inverse;
    squares += square;
    raw[at + i] = -weight * error * inverse * mean * (1 - mean);
    raw[at + PIXELS + i] = weight * (1 - square) * sp * (r < 0 ? e : 1) / t * inverse;
  }
  return -0.5 * (squares + logs + Math.log(grown) + PIXELS * LOG_2PI);
};
const shared = {gradient: 0}; // of the raw σ, where an image or all images have one
const oneSigma = (raw, at, x, xat, scale, rawSigma, floor, beta) => {
  const variance = floor * floor + softplus(rawSigma) ** 2, inverse = 1 / variance;
  const weight = weighted(scale, variance, beta);
  let squares = 0;
  for (let i = 0; i < PIXELS; i++) {
    const mean = sigmoid(raw[at + i]), error = x[xat + i] - mean;
    squares += error * error;
    raw[at + i] = -weight * error * inverse * mean * (1 - mean);
  }
  shared.gradient = weight * (PIXELS - squares * inverse) * slopeOf(rawSigma, variance);
  return -0.5 * (squares * inverse + PIXELS * (Math.log(variance) + LOG_2PI));
};

const moments = (raw, at, kind, shared, floor) => { // what is shown: mean and σ of each pixel
  const mean = new Float32Array(PIXELS), sigma = new Float32Array(PIXELS);
  const single = kind === "imagewise" ? raw[at + PIXELS] : shared, one = positive(single, floor);
  for (let i = 0; i < PIXELS; i++) {
    const m = mean[i] = sigmoid(raw[at + i]);
    sigma[i] = kind === "bernoulli" ? Math.sqrt(m * (1 - m))
      : kind === "pixelwise" ? positive(raw[at + PIXELS + i], floor) : one;
  }
  return {mean, sigma};
};
