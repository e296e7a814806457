const linear = ({weight, bias}) => x => bias.map((b, i) => {
  for (let j = 0, k = i * x.length; j < x.length; j++) b += weight[k + j] * x[j];
  return b;
});
const transposed = ({weight, bias, from: [C, h, w], to: [D, H, W], kernel_size: [a, b], stride, padding, around}) => x => {
  const out = new Float32Array(D * H * W), inside = (i, n) => Math.min(Math.max(i, 0), n - 1);  // the border is repeated
  for (let d = 0, k = 0; d < D; d++) {
    out.fill(bias[d], d * H * W, (d + 1) * H * W);
    for (let c = 0; c < C; c++) for (let i = 0; i < a; i++) for (let j = 0; j < b; j++, k++)
      for (let y = -around[0]; y < h + around[0]; y++) for (let x_ = -around[1]; x_ < w + around[1]; x_++) {
        const Y = y * stride[0] - padding[0] + i, X = x_ * stride[1] - padding[1] + j;
        if (Y >= 0 && Y < H && X >= 0 && X < W) 
          out[(d * H + Y) * W + X] += weight[k] * x[(c * h + inside(y, h)) * w + inside(x_, w)];
      }
  }
  return out;
};
const sigmoid = v => 1 / (1 + Math.exp(-v)), softplus = v => v > 20 ? v : Math.log1p(Math.exp(v));
const erf = v => {
  const t = 1 / (1 + 0.3275911 * Math.abs(v)), c = [1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592];
  return Math.sign(v) * (1 - c.reduce((sum, a) => sum * t + a, 0) * t * Math.exp(-v * v));
};
const elu = v => v > 0 ? v : Math.expm1(v);
const activations = {
  relu: v => Math.max(v, 0), silu: v => v * sigmoid(v), gelu: v => v * (1 + erf(v * Math.SQRT1_2)) / 2,
  mish: v => v * Math.tanh(softplus(v)), elu,
  selu: v => 1.0507009873554805 * (v > 0 ? v : 1.6732632423543772 * Math.expm1(v)),
  leaky_relu: v => v > 0 ? v : 0.01 * v, softplus, tanh: Math.tanh, sigmoid,
};
const makers = {linear, transposed};
const steps = SPEC.layers.map(layer => {
  if (layer.kind in activations) return x => x.map(activations[layer.kind]);
  return makers[layer.kind]({...layer, weight: read(layer.weight), bias: read(layer.bias)});
});
