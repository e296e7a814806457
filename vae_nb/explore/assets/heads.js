const n = SPEC.shape[0] * SPEC.shape[1] * SPEC.shape[2];
const link = SPEC.link === "sigmoid" ? v => sigmoid(v) : v => v, positive = v => Math.hypot(SPEC.floor, softplus(v));
const sigmas = {
  pixelwise: raw => raw.subarray(n).map(positive),
  imagewise: raw => new Float32Array(n).fill(positive(raw.subarray(n).reduce((a, b) => a + b, 0) / (raw.length - n))),
  homoscedastic: () => new Float32Array(n).fill(SPEC.sigma),
  bernoulli: (raw, mean) => mean.map(p => Math.sqrt(p * (1 - p))),
};
const decode = z => {
  const raw = steps.reduce((x, step) => step(x), Float32Array.from(z)), mean = raw.slice(0, n).map(link);
  return {mean, sigma: sigmas[SPEC.noise](raw, mean)};
};
