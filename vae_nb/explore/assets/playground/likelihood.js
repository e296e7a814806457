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

const gaussian = (raw, at, x, xat, scale, kind, shared, floor, beta) => { // shared: the raw σ where there is only one
  const floor2 = floor * floor, pixelwise = kind === "pixelwise";
  let variance = 1, slope = 0, weight = scale, squares = 0, logs = 0, grown = 1, gradient = 0;
  const spread = r => {
    const e = exp(r < 0 ? r : -r), sp = (r > 0 ? r : 0) + (e < 1e-5 ? e - e * e / 2 : Math.log(1 + e));
    variance = floor2 + sp * sp;
    slope = sp * (r < 0 ? e : 1) / (1 + e) / variance; // d log σ / d raw
    weight = beta === 0 ? scale : beta === 1 ? scale * variance : beta === 0.5 ? scale * Math.sqrt(variance)
      : scale * exp(beta * Math.log(variance)); // σ^2β, held fixed: no gradient goes through it
  };
  if (!pixelwise) spread(shared);
  for (let i = 0; i < PIXELS; i++) {
    if (pixelwise) {
      spread(raw[at + PIXELS + i]);
      grown *= variance;
      if (grown < 1e-250 || grown > 1e250) { logs += Math.log(grown); grown = 1; }
    }
    const mean = sigmoid(raw[at + i]), error = x[xat + i] - mean, square = error * error / variance;
    squares += square;
    raw[at + i] = -weight * error / variance * mean * (1 - mean);
    if (pixelwise) raw[at + PIXELS + i] = weight * (1 - square) * slope;
    else gradient += weight * (1 - square) * slope;
  }
  logs = pixelwise ? logs + Math.log(grown) : PIXELS * Math.log(variance);
  return [-0.5 * (squares + logs + PIXELS * LOG_2PI), gradient];
};

const moments = (raw, at, kind, shared, floor) => { // what is shown: mean and σ of each pixel
  const mean = new Float32Array(PIXELS), sigma = new Float32Array(PIXELS);
  const one = kind === "imagewise" ? positive(raw[at + PIXELS], floor) : kind === "homoscedastic" ? positive(shared, floor) : 0;
  for (let i = 0; i < PIXELS; i++) {
    const m = mean[i] = sigmoid(raw[at + i]);
    sigma[i] = kind === "bernoulli" ? Math.sqrt(m * (1 - m)) : kind === "pixelwise" ? positive(raw[at + PIXELS + i], floor) : one;
  }
  return {mean, sigma};
};
