// A model is one array of numbers, seen as layers; a gradient, and Adam's two means, are arrays of the same length.
const BATCH = 128;
const makeModel = options => {
  const {likelihood, posterior, latents: L, hidden: H, seed = 0} = options;
  const E = rawCount(posterior, L), R = decoderRaw(likelihood);
  const shapes = {W1: PIXELS * H, b1: H, W2: E * H, b2: E, V1: H * L, c1: H, V2: R * H, c2: R, s: 1};
  const size = Object.values(shapes).reduce((a, b) => a + b);
  const views = buffer => {
    let at = 0;
    return Object.fromEntries(Object.entries(shapes).map(([name, n]) => [name, buffer.subarray(at, at += n)]));
  };
  const values = new Float32Array(size), gradient = new Float32Array(size), like = n => new Float32Array(BATCH * n);
  const model = {...options, E, R, values, gradient, w: views(values), g: views(gradient), t: 0,
    first: new Float32Array(size), second: new Float32Array(size), kl: like(1), logp: like(1),
    a1: like(H), h1: like(H), q: like(E), z: like(L), a2: like(H), h2: like(H), raw: like(R),
    gq: like(E), gz: like(L), gh: like(H), noise: like(L), x: like(PIXELS)};
  const random = makeRandom(seed), {w} = model; // hidden layers as He et al. 2015, the last ones as torch.nn.Linear
  const fill = (weights, draw) => { for (let i = 0; i < weights.length; i++) weights[i] = draw(); };
  const he = (weights, inputs) => fill(weights, () => random.normal() * Math.sqrt(2 / inputs));
  const flat = weights => fill(weights, () => (2 * random.uniform() - 1) / Math.sqrt(H));
  he(w.W1, PIXELS); he(w.V1, L);
  for (const weights of [w.W2, w.b2, w.V2, w.c2]) flat(weights);
  if (likelihood === "imagewise") { // the mean of 784 rows: see the notebook
    for (let i = PIXELS * H; i < R * H; i++) w.V2[i] /= Math.sqrt(PIXELS);
    w.c2[PIXELS] /= Math.sqrt(PIXELS);
  }
  w.s[0] = -1.5077717304229736; // softplus⁻¹(0.2)
  return model;
};

// x: {start, place, value} of n images, at most BATCH; noise is in model.noise. Fills kl and logp of each image.
const encode = (m, x, n) => {
  sparseForward(m.a1, x, n, m.w.W1, m.w.b1, m.hidden);
  activate(m.h1, m.a1, n * m.hidden, m.activation);
  product(m.q, n, m.E, m.hidden, m.h1, m.hidden, 1, m.w.W2, m.hidden, 1, m.w.b2);
};
const decode = (m, n) => {
  product(m.a2, n, m.hidden, m.latents, m.z, m.latents, 1, m.w.V1, m.latents, 1, m.w.c1);
  activate(m.h2, m.a2, n * m.hidden, m.activation);
  product(m.raw, n, m.R, m.hidden, m.h2, m.hidden, 1, m.w.V2, m.hidden, 1, m.w.c2);
};
const forward = (m, x, n, scale) => {
  encode(m, x, n);
  sampleLatents(m.z, m.q, m.noise, n, m.posterior, m.latents, m.kl);
  decode(m, n);
  m.x.fill(0, 0, n * PIXELS);
  for (let b = 0; b < n; b++)
    for (let j = x.start[b]; j < x.start[b + 1]; j++) m.x[b * PIXELS + x.place[j]] = x.value[j];
  m.g.s[0] = 0;
  for (let b = 0; b < n; b++) {
    const at = b * m.R, xat = b * PIXELS;
    if (m.likelihood === "bernoulli") m.logp[b] = bernoulli(m.raw, at, m.x, xat, scale);
    else if (m.likelihood === "pixelwise") m.logp[b] = pixelwise(m.raw, at, m.x, xat, scale, m.floor, m.beta);
    else {
      const imagewise = m.likelihood === "imagewise", raw = imagewise ? m.raw[at + PIXELS] : m.w.s[0];
      m.logp[b] = oneSigma(m.raw, at, m.x, xat, scale, raw, m.floor, m.beta);
      if (imagewise) m.raw[at + PIXELS] = shared.gradient / PIXELS; // of one of the 784 rows
      else m.g.s[0] += shared.gradient;
    }
  }
};
// The gradient of the loss, the mean over n images of −(score − weight · KL).
const gradients = (m, x, n, weight) => {
  const {hidden: H, latents: L, R, E, w, g} = m;
  forward(m, x, n, 1 / n);
  product(g.V2, R, H, n, m.raw, 1, R, m.h2, 1, H);
  columnSums(g.c2, m.raw, n, R);
  if (m.likelihood === "imagewise") for (let b = 0; b < n; b++) m.raw[b * R + PIXELS] *= PIXELS; // all rows together
  product(m.gh, n, H, R, m.raw, R, 1, w.V2, 1, H);
  activateBackward(m.gh, m.a2, n * H, m.activation);
  product(g.V1, H, L, n, m.gh, 1, H, m.z, 1, L);
  columnSums(g.c1, m.gh, n, H);
  product(m.gz, n, L, H, m.gh, H, 1, w.V1, 1, L);
  latentsBackward(m.gq, m.gz, m.q, m.noise, n, m.posterior, L, weight / n);
  product(g.W2, E, H, n, m.gq, 1, E, m.h1, 1, H);
  columnSums(g.b2, m.gq, n, E);
  product(m.gh, n, H, E, m.gq, E, 1, w.W2, 1, H);
  activateBackward(m.gh, m.a1, n * H, m.activation);
  sparseBackward(g.W1, x, n, m.gh, H);
  columnSums(g.b1, m.gh, n, H);
};
const adam = (m, rate) => { // Kingma & Ba 2015, with PyTorch's constants
  m.t++;
  const {values, gradient, first, second} = m, step = rate / (1 - 0.9 ** m.t), root = 1 / Math.sqrt(1 - 0.999 ** m.t);
  for (let i = 0; i < values.length; i++) {
    const g = gradient[i], a = first[i] = 0.9 * first[i] + 0.1 * g, b = second[i] = 0.999 * second[i] + 0.001 * g * g;
    values[i] -= step * a / (Math.sqrt(b) * root + 1e-8);
  }
};
