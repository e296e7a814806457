// Experiments. Each asks first, then calls lab.start (a new training), lab.set (other settings) and lab.train (so
// many images),
// and says what it found. `happened` is the number of the answer that came true, from the numbers alone.
const sum = list => list.reduce((a, b) => a + b, 0);
const klPerLatent = (report, {posterior, latents: L}) => {
  // mean over the held-out images, of each latent's own posterior
  const E = rawCount(posterior, L),
    n = report.q.length / E,
    out = Array(L).fill(0);
  for (let b = 0; b < n; b++) {
    const T = factor(posterior, L, report.q, b * E);
    for (let i = 0; i < L; i++) {
      let variance = 0;
      for (let j = 0; j <= i; j++) variance += T[i * L + j] ** 2;
      out[i] += (report.q[b * E + i] ** 2 + variance - 1 - Math.log(variance)) / 2 / n;
    }
  }
  return out;
};
const widths = (report, {posterior, latents: L}) => {
  // the mean σ of a latent, the spread of the means, the mean |correlation| of the first two
  const E = rawCount(posterior, L),
    n = report.q.length / E;
  let sigma = 0,
    square = 0,
    tilt = 0;
  for (let b = 0; b < n; b++) {
    const T = factor(posterior, L, report.q, b * E);
    for (let i = 0; i < L; i++) {
      let variance = 0;
      for (let j = 0; j <= i; j++) variance += T[i * L + j] ** 2;
      sigma += Math.sqrt(variance) / n / L;
      square += report.q[b * E + i] ** 2 / n / L;
    }
    tilt += Math.abs(T[L]) / Math.hypot(T[L], T[L + 1]) / n;
  }
  return {sigma, spread: Math.sqrt(square), tilt};
};
const quantile = (list, share) => {
  const sorted = Float64Array.from(list).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
};
const PLAIN = {
  likelihood: "bernoulli",
  posterior: "mean_field",
  latents: 2,
  hidden: 64,
  activation: "relu",
  rate: 0.002,
  floor: 0.03,
  beta: 0,
  klWeight: 1,
  anneal: 0,
  without: [],
  seed: 0
};
const fixed = (value, digits = 1) => value.toFixed(digits).replace("-", "−");

const EXPERIMENTS = [
  {
    name: "Collapse, and back",
    lesson: "tutorials/04_collapse_and_beta_nll.html",
    question: "The KL weight goes from 1 to 50, and after a while back to 1. What becomes of the two latents?",
    answers: [
      "They stay in use all the time.",
      "They collapse at 50, and come back at 1.",
      "They collapse at 50, and stay so."
    ],
    run: async lab => {
      await lab.start(PLAIN);
      const before = await lab.train(24000, "KL weight 1");
      await lab.set({klWeight: 50});
      const during = await lab.train(30000, "KL weight 50");
      await lab.set({klWeight: 1});
      const after = await lab.train(42000, "KL weight 1 again");
      const [a, b, c] = [before, during, after].map(r => sum(klPerLatent(r, PLAIN)));
      return {
        happened: b > 0.2 * a ? 0 : c > 0.5 * a ? 1 : 2,
        says:
          `The KL was ${fixed(a)} nats, fell to ${fixed(b, 2)} at weight 50, and was ${fixed(c)} at the end. A KL ` +
          `of 0 is posterior collapse: q(z|x) is the ` +
          "prior for every image, and all reconstructions are the mean image. The gradient of the reconstruction " +
          "is still there, so with a smaller weight the encoder can learn to use z again."
      };
    }
  },
  {
    name: "NLL buys likelihood with σ",
    lesson: "tutorials/04_collapse_and_beta_nll.html",
    question:
      "Eight latents and a σ for each pixel, trained once with the NLL and once with the β-NLL (β = 0.5), with " +
      "equally many images. Which mean is nearer to the held-out digits?",
    answers: ["That of the NLL.", "That of the β-NLL.", "They are equally near (within 2 %)."],
    run: async lab => {
      const both = {...PLAIN, likelihood: "pixelwise", latents: 8, floor: 0.00113};
      await lab.start({...both, beta: 0});
      const nll = await lab.train(42000, "NLL");
      await lab.start({...both, beta: 0.5, klWeight: 0.1});
      const beta = await lab.train(42000, "β-NLL"),
        ratio = nll.rmse / beta.rmse;
      return {
        happened: ratio > 1.02 ? 1 : ratio < 0.98 ? 0 : 2,
        says:
          `RMSE ${fixed(nll.rmse, 3)} with the NLL and ${fixed(beta.rmse, 3)} with the β-NLL; mean σ ` +
          `${fixed(nll.sigma, 3)} and ${fixed(beta.sigma, 3)}. ` +
          "The NLL divides each error by σ². Where σ is large, along the strokes, the mean hardly learns: a large " +
          "σ there and a small one in the black border buy likelihood at once. " +
          "The β-NLL multiplies each pixel by σ^2β, so that pixels with a large σ keep learning. Its KL weight is " +
          "0.1 here, because its reconstruction is smaller too."
      };
    }
  },
  {
    name: "Squeeze with the KL weight",
    lesson: "tutorials/02_elbo.html",
    question:
      "The model is trained with a KL weight of 1, and from the start again with 8. How do the ellipses of q(z|x) " +
      "differ?",
    answers: [
      "With 8 they are larger, and the reconstruction is worse.",
      "With 8 they are smaller, and the reconstruction is better.",
      "They do not differ."
    ],
    run: async lab => {
      await lab.start(PLAIN);
      const before = await lab.train(36000, "KL weight 1");
      await lab.start({...PLAIN, klWeight: 8});
      const after = await lab.train(36000, "KL weight 8");
      const [a, b] = [before, after].map(r => widths(r, PLAIN)),
        [x, y] = [before, after].map(r => mean(r.logp));
      return {
        happened: b.sigma > 1.1 * a.sigma && y < x ? 0 : b.sigma < 0.9 * a.sigma && y > x ? 1 : 2,
        says:
          `The mean σ of a latent is ${fixed(a.sigma, 2)} with weight 1 and ${fixed(b.sigma, 2)} with weight 8, ` +
          `the KL ${fixed(mean(before.kl))} and ${fixed(mean(after.kl))} nats, the reconstruction log p(x|z) ` +
          `${fixed(x)} and ${fixed(y)} nats. With weight 8 a nat of KL must win eight nats of reconstruction, so ` +
          `z says less about the image. This is the β-VAE.`
      };
    }
  },
  {
    name: "Remove the KL",
    lesson: "tutorials/02_elbo.html",
    question:
      "The KL weight is 0 from the start. Where do the images lie in the latent plane, compared with the prior (σ " +
      "= 1)?",
    answers: ["As under the prior.", "Wider than the prior, with tiny ellipses.", "In one point, with large ellipses."],
    run: async lab => {
      await lab.start({...PLAIN, klWeight: 0});
      const report = await lab.train(48000, "KL weight 0"),
        {sigma, spread} = widths(report, PLAIN);
      return {
        happened: spread > 1.5 && sigma < 0.3 ? 1 : spread < 0.3 && sigma > 1 ? 2 : 0,
        says:
          `The means spread with σ = ${fixed(spread)}, the ellipses have σ = ${fixed(sigma, 2)}, and the KL that ` +
          `nobody asked for is ${fixed(mean(report.kl))} nats. ` +
          "Without the KL a VAE is an autoencoder: it spreads the images so far that their noise is no matter. " +
          "Draws from the prior then fall between them, or onto few of them."
      };
    }
  },
  {
    name: "Teach it without a digit",
    lesson: "tutorials/07_is_my_uncertainty_true.html",
    question:
      "The training set holds no 0. Of the held-out zeros, how many have an ELBO in the lowest twentieth of the " +
      "digits that it knows?",
    answers: ["Less than a quarter: it can hardly tell.", "A quarter to three quarters.", "More than three quarters."],
    run: async lab => {
      await lab.start({...PLAIN, without: [0]});
      const report = await lab.train(60000, "without 0"),
        elbo = report.logp.map((v, i) => v - report.kl[i]);
      const low = quantile(
          elbo.filter((_, i) => report.labels[i] !== 0),
          0.05
        ),
        zeros = elbo.filter((_, i) => report.labels[i] === 0);
      const share = zeros.filter(v => v < low).length / zeros.length;
      lab.show(0);
      return {
        happened: share > 0.75 ? 2 : share >= 0.25 ? 1 : 0,
        says:
          `${fixed(100 * share, 0)} % of the zeros lie below the lowest twentieth of the known digits, at ` +
          `${fixed(low, 0)} nats. The model was never shown one, and reconstructs it as a digit that it knows. ` +
          "Now draw a 0 yourself, and then another digit: the page says how each compares with the held-out digits. " +
          "Then leave out the 1 in its place: does the model notice that a 1 is new?"
      };
    }
  },
  {
    name: "Tilt the ellipses",
    lesson: "tutorials/05_full_covariance.html",
    question:
      "The posterior is trained as mean-field, then as full covariance, from the same seed. What does the " +
      "covariance change?",
    answers: [
      "Ellipses tilt, and the ELBO changes by less than 5 nats.",
      "Ellipses tilt, and the ELBO rises by 5 nats or more.",
      "Nothing: the correlations stay below 0.1."
    ],
    run: async lab => {
      await lab.start(PLAIN);
      const field = await lab.train(60000, "mean-field"),
        full = {...PLAIN, posterior: "full_covariance"};
      await lab.start(full);
      const tilted = await lab.train(60000, "full covariance"),
        {tilt} = widths(tilted, full),
        gain = mean(tilted.logp) - mean(tilted.kl) - mean(field.logp) + mean(field.kl);
      return {
        happened: tilt < 0.1 ? 2 : gain >= 5 ? 1 : 0,
        says:
          `The mean size of the correlation is ${fixed(tilt, 2)}, and the ELBO changed by ${fixed(gain)} nats. A ` +
          `mean-field posterior has its axes along z₁ and z₂, and the encoder arranges the plane so that this ` +
          `costs little. ` +
          "A full covariance also fits where the true posterior lies askew. With one seed, a nat or two may be " +
          "chance: try another."
      };
    }
  }
];
