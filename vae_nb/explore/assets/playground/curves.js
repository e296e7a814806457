// Curves of the ELBO and its two parts, and the claimed σ against the true error.
let curve = [];
const drawCurves = () => {
  const names = {elbo: p => p && p.logp - p.kl, logp: p => p && p.logp, kl: p => p && p.kl};
  const lastX = Math.max(1000, curve.at(-1)?.images ?? 0);
  for (const [name, value] of Object.entries(names)) {
    const points = which =>
      curve.filter(h => h[which] && Number.isFinite(value(h[which]))).map(h => [h.images, value(h[which])]);
    const train = points("train"),
      test = points("test"),
      late = [...train, ...test].filter(([x]) => x > 0.05 * lastX).map(p => p[1]);
    const all = late.length ? late : test.map(p => p[1]);
    if (!all.length) {
      sharp($(`curve-${name}`));
      continue;
    }
    let low = Math.min(...all),
      high = Math.max(...all);
    if (high - low < 1e-3) {
      low -= 1;
      high += 1;
    }
    const room = 0.08 * (high - low),
      {context, X, Y, width, height} = frame($(`curve-${name}`), [0, lastX], [low - room, high + room]);
    context.save();
    context.beginPath();
    context.rect(42, 2, width - 42, height - 22);
    context.clip();
    line(
      context,
      train.map(([x, y]) => [X(x), Y(y)]),
      css("--train")
    );
    line(
      context,
      test.map(([x, y]) => [X(x), Y(y)]),
      css("--test")
    );
    context.restore();
  }
  const last = curve.at(-1);
  if (!last) return;
  const part = (p, name) =>
    p ? `${name}: ELBO ${say(p.logp - p.kl)}, reconstruction ${say(p.logp)}, KL ${say(p.kl)} nats` : "";
  $("curves-text").textContent =
    [
      `After ${last.images.toLocaleString("en")} images`,
      [part(last.test, "held out"), part(last.train, "training")].filter(Boolean).join("; ")
    ].join(". ") + ".";
};
const drawBins = () => {
  if (!lastReport) return;
  const {bins, rmse, sigma} = lastReport,
    {context, X, Y, width, height} = frame($("bins"), [0.001, 1], [0.001, 1], true),
    most = Math.max(...bins.map(b => b.n));
  line(
    context,
    [
      [X(0.001), Y(0.001)],
      [X(1), Y(1)]
    ],
    css("--soft"),
    1
  );
  context.save();
  context.beginPath();
  context.rect(42, 2, width - 42, height - 22);
  context.clip();
  for (const b of bins) {
    context.fillStyle = css("--test");
    context.beginPath();
    context.arc(X(b.sigma), Y(Math.max(b.error, 0.001)), 2 + 4 * Math.sqrt(b.n / most), 0, 7);
    context.fill();
  }
  context.restore();
  $("bins-text").textContent =
    `Claimed and true: the mean σ of a pixel is ${say(sigma, 3)}, the RMSE ${say(rmse, 3)}. Each dot is a bin of ` +
    `pixels with like σ, its size their number; on the line the claim is true. ` +
    (bins.length
      ? `In the bin with the largest σ, ${say(bins.at(-1).sigma, 3)}, the error is ${say(bins.at(-1).error, 3)}.`
      : "");
};
