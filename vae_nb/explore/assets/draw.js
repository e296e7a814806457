const [C, H, W] = SPEC.shape, one = SPEC.noise === "imagewise" || SPEC.noise === "homoscedastic";
const mapped = v => {
  const at = Math.min(Math.max(v, 0), 1) * (SPEC.viridis.length - 1),
    i = Math.min(Math.floor(at), SPEC.viridis.length - 2);
  return SPEC.viridis[i].map((a, c) => a + (at - i) * (SPEC.viridis[i + 1][c] - a));
};
const paint = (canvas, colour, left = 0, top = 0) => {
  const image = new ImageData(W, H);
  for (let i = 0; i < H * W; i++) image.data.set([...colour(i), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, left, top);
};
const pixel = (mean, scale = 255) => i => [0, 1, 2].map(c => scale * mean[C === 3 ? c * H * W + i : i]);
const spread = sigma => i => {
  let sum = 0;
  for (let c = 0; c < C; c++) sum += sigma[c * H * W + i] ** 2;
  return Math.sqrt(sum / C);
};
const short = v => v.toPrecision(2).replace(/e-0*/, "e−");
const largest = sigma => {
  let top = 0;
  for (let i = 0; i < H * W; i++) top = Math.max(top, spread(sigma)(i));
  return top;
};
