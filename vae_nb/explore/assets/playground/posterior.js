// q(z|x). Raw numbers: means, then the widths; with a full covariance the factor's diagonal, then below it, row by row.
const LATENT_FLOOR = 1e-4;
const rawCount = (posterior, L) => posterior === "full_covariance" ? L + L * (L + 1) / 2 : 2 * L;
const factor = (posterior, L, raw, at) => { // T, (L, L): z = mean + T ε
  const T = new Float64Array(L * L);
  for (let i = 0; i < L; i++) T[i * L + i] = positive(raw[at + L + i], LATENT_FLOOR);
  if (posterior !== "full_covariance") return T;
  for (let i = 1, r = at + 2 * L; i < L; i++) for (let j = 0; j < i; j++, r++) T[i * L + j] = raw[r] / Math.sqrt(L);
  return T;
};
const sampleLatents = (z, raw, noise, n, posterior, L, kl) => {
  const E = rawCount(posterior, L);
  for (let b = 0; b < n; b++) {
    const T = factor(posterior, L, raw, b * E);
    let sum = 0;
    for (let i = 0; i < L; i++) {
      let value = raw[b * E + i];
      sum += value * value - 1 - 2 * Math.log(T[i * L + i]);
      for (let j = 0; j <= i; j++) {
        value += T[i * L + j] * noise[b * L + j];
        sum += T[i * L + j] ** 2;
      }
      z[b * L + i] = value;
    }
    kl[b] = sum / 2;
  }
};
// The gradient of the loss for the raw numbers, from that for z; the KL adds its own, times weight.
const latentsBackward = (G, Gz, raw, noise, n, posterior, L, weight) => {
  const E = rawCount(posterior, L), full = posterior === "full_covariance";
  for (let b = 0; b < n; b++) {
    const T = factor(posterior, L, raw, b * E), at = b * E;
    for (let i = 0, r = at + 2 * L; i < L; i++) {
      const g = Gz[b * L + i], width = T[i * L + i];
      G[at + i] = g + weight * raw[at + i];
      G[at + L + i] = (g * noise[b * L + i] + weight * (width - 1 / width)) * positiveSlope(raw[at + L + i], width);
      if (full) for (let j = 0; j < i; j++, r++) G[r] = (g * noise[b * L + j] + weight * T[i * L + j]) / Math.sqrt(L);
    }
  }
};
