// Random numbers (sfc32), and functions that are called for every pixel.
const makeRandom = seed => {
  let a = seed >>> 0, b = 0x9e3779b9, c = 0x243f6a88, counter = 1;
  const bits = () => {
    const t = (a + b + counter++) | 0;
    a = b ^ b >>> 9;
    b = (c + (c << 3)) | 0;
    c = ((c << 21 | c >>> 11) + t) | 0;
    return t >>> 0;
  };
  for (let i = 0; i < 15; i++) bits();
  const uniform = () => (bits() + 0.5) / 4294967296;
  const normal = () => Math.sqrt(-2 * Math.log(uniform())) * Math.cos(2 * Math.PI * uniform());
  return {uniform, normal};
};

const POWERS = Float64Array.from({length: 2048}, (_, i) => 2 ** (i - 1024)), LN2 = Math.LN2;
const exp = v => { // 2^k times a polynomial; for −700 to 700, right to 1e-8
  const x = v < -700 ? -700 : v > 700 ? 700 : v, k = (x * Math.LOG2E + 1024.5) | 0, r = x - (k - 1024) * LN2;
  const cubic = 1 / 6 + r * (1 / 24 + r * (1 / 120 + r * (1 / 720 + r / 5040)));
  return POWERS[k] * (1 + r * (1 + r * (1 / 2 + r * cubic)));
};
const sigmoid = x => {
  const e = exp(x < 0 ? x : -x);
  return (x < 0 ? e : 1) / (1 + e);
};
const softplus = x => {
  const e = exp(x < 0 ? x : -x);
  return (x > 0 ? x : 0) + (e < 1e-5 ? e - e * e / 2 : Math.log(1 + e));
};
const positive = (raw, floor) => Math.sqrt(floor * floor + softplus(raw) ** 2);
const positiveSlope = (raw, value) => softplus(raw) * sigmoid(raw) / value; // d positive / d raw
