// The worker, the buttons, and the order of things.
let worker = null,
  running = false,
  images = 0,
  turn = 0,
  told = 0,
  waiting = null,
  pending = false,
  busyExperiment = false;
const announce = (text, also = true) => {
  if (also || performance.now() > told + 2000) {
    $("status").textContent = text;
    told = performance.now();
  }
};
const later = action => {
  // at most once a frame
  if (pending) return;
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    action();
  });
};
const redraw = () => {
  encodeHeldOut();
  showImage();
  drawPlane();
  drawSheet();
};
const redrawAll = () => {
  legend();
  redraw();
  drawCurves();
  drawBins();
};
const setRunning = on => {
  running = on;
  $("play").textContent = on ? "Pause" : "Train";
  $("step").disabled = on;
};
const begin = () => {
  // a new training with the settings as they are
  if (!noisy()) options.beta = 0;
  model = app.makeModel(options);
  view.z = new Float32Array(options.latents);
  Object.assign(view, {across: 0, up: 1, path: null});
  walkEnds = null;
  curve = [];
  lastReport = null;
  if (shown.kind === "point") shown = {kind: "test", index: 0};
  choosePlane();
  showSettings();
  writeAddress();
  setRunning(false);
  worker.postMessage({kind: "start", options, turn: ++turn});
};
const change = more => {
  // settings that hold at once
  Object.assign(options, more);
  Object.assign(model, {floor: options.floor, beta: options.beta});
  worker.postMessage({kind: "set", options: more});
  showSettings();
  writeAddress();
  later(redraw);
};
const heard = ({data: message}) => {
  if (message.turn !== turn) return; // of the training before
  model.values.set(message.values);
  images = message.images;
  $("images").textContent = images.toLocaleString("en");
  if (message.speed) $("speed").textContent = Math.round(message.speed).toLocaleString("en");
  if (message.report) {
    const {logp, kl, rmse} = (lastReport = message.report),
      test = {logp: app.mean(logp), kl: app.mean(kl)};
    curve.push({images, train: message.train, test});
    if (curve.length > 600) curve = curve.filter((_, i) => i % 2 || i === curve.length - 1);
    $("elbo").textContent = say(test.logp - test.kl);
    $("rmse").textContent = say(rmse, 3);
    if (running && !busyExperiment && performance.now() > told + 10000)
      announce(`ELBO ${say(test.logp - test.kl)} after ${images.toLocaleString("en")} images`);
  }
  if (message.kind === "broken") {
    stopExperiment();
    setRunning(false);
    announce("The loss is no longer finite. Start again with a smaller learning rate or a larger σ floor.");
  }
  if (message.kind === "reached") {
    setRunning(false);
    const {arrived} = waiting ?? {};
    waiting = null;
    arrived?.(message.report);
  }
  later(() => {
    redraw();
    if (message.report) {
      drawCurves();
      drawBins();
    }
  });
};
$("play").onclick = () => {
  stopExperiment();
  setRunning(!running);
  worker.postMessage({kind: running ? "play" : "pause"});
  announce(running ? "Training" : `Paused after ${images.toLocaleString("en")} images`);
};
$("step").onclick = () => {
  worker.postMessage({kind: "step"});
};
$("reset").onclick = () => {
  stopExperiment();
  begin();
  announce("A new model, untrained");
};
form.addEventListener("submit", event => event.preventDefault());
form.addEventListener("input", event => {
  if (STEPS[event.target.name]) {
    stopExperiment();
    change({[event.target.name]: readForm(event.target.name)});
  }
});
form.addEventListener("change", event => {
  const {name} = event.target;
  if (STEPS[name]) return;
  const value = readForm(name);
  if (name === "without" && value.length > 9) {
    event.target.checked = false;
    announce("At least one digit must be left in.");
    return;
  }
  stopExperiment();
  if (!FRESH.includes(name)) {
    change({[name]: value});
    return;
  }
  options[name] = value;
  begin();
  announce("A new model, untrained");
});
addEventListener("hashchange", () => {
  Object.assign(options, app.PLAIN);
  readAddress();
  stopExperiment();
  begin();
});

// Experiments
let experiment = 0; // the number of the one that runs; another number stops it
const stopExperiment = () => {
  if (!busyExperiment) return;
  experiment++;
  busyExperiment = false;
  waiting?.stop();
  waiting = null;
};
const lab = mine => {
  const still = () => {
    if (mine !== experiment) throw new Error("stopped");
  };
  return {
    start: async wanted => {
      still();
      Object.assign(options, wanted);
      begin();
    },
    set: async more => {
      still();
      change(more);
    },
    show: digit => {
      still();
      showTest(DATA.testLabels.indexOf(digit));
    },
    train: (count, what) =>
      new Promise((resolve, reject) => {
        still();
        announce(`Experiment: ${what}, ${count.toLocaleString("en")} images`);
        waiting = {
          arrived: report => resolve({...report, logp: Array.from(report.logp), kl: Array.from(report.kl)}),
          stop: () => reject(new Error("stopped"))
        };
        setRunning(true);
        worker.postMessage({kind: "play", images: count});
      })
  };
};
const showExperiments = () =>
  app.EXPERIMENTS.forEach(({name, question, answers, lesson, run}, e) => {
    const card = document.createElement("section");
    card.className = "experiment";
    card.innerHTML =
      `<h3>${name}</h3><p id="question-${e}">${question}</p><fieldset ` +
      `aria-labelledby="question-${e}"></fieldset><button type="button" disabled>Run it</button><div></div>`;
    const [fields, button, result] = [
      card.querySelector("fieldset"),
      card.querySelector("button"),
      card.querySelector("div")
    ];
    result.tabIndex = -1;
    answers.forEach((answer, i) =>
      fields.insertAdjacentHTML(
        "beforeend",
        `<label><input type="radio" name="answer-${e}" value="${i}">${answer}</label>`
      )
    );
    fields.addEventListener("change", () => {
      button.disabled = busyExperiment;
    });
    button.onclick = async () => {
      const mine = ++experiment,
        guess = Number(fields.querySelector("input:checked").value);
      busyExperiment = true;
      for (const b of document.querySelectorAll(".experiment button")) b.disabled = true;
      result.textContent = "Training: watch the plane and the curves. Pause stops it.";
      $("plane-title").parentElement.scrollIntoView();
      $("play").focus({preventScroll: true}); // what was pressed is no longer enabled
      try {
        const {happened, says} = await run(lab(mine));
        const right = happened === guess;
        const link = SITE ? ` <a href="${SITE}/${lesson}">The lesson</a>` : "";
        const verdict = right ? "Your prediction was right." : `It came otherwise: ${answers[happened]}`;
        result.innerHTML = `<p class="verdict ${right ? "right" : "wrong"}">${verdict}</p><p>${says}${link}</p>`;
        announce(`Experiment done. ${right ? "Your prediction was right." : "It came otherwise."}`);
        result.focus(); // brings it into view, and a screen reader reads it
      } catch (error) {
        if (error.message !== "stopped") throw error;
        result.textContent = "Stopped.";
      } finally {
        if (mine === experiment) busyExperiment = false; // else another one runs, or none
        for (const c of document.querySelectorAll(".experiment"))
          c.querySelector("button").disabled = busyExperiment || !c.querySelector("input:checked");
      }
    };
    $("experiments").append(card);
  });

const inflate = async text => {
  const packed = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  return new Uint8Array(
    await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer()
  );
};
const DATA = {};
const openPage = async () => {
  const [n, m] = COUNTS,
    bytes = await inflate(DIGITS),
    half = 784 / 2;
  const parts = {
    train: bytes.slice(0, n * half),
    test: bytes.slice(n * half, (n + m) * half),
    trainLabels: bytes.slice((n + m) * half, (n + m) * half + n),
    testLabels: bytes.slice((n + m) * half + n)
  };
  DATA.test = app.unpack(parts.test, m);
  DATA.testLabels = parts.testLabels;
  const text = `"use strict"; (${workerMain})((${makeTrainer})());`;
  worker = new Worker(URL.createObjectURL(new Blob([text], {type: "text/javascript"})));
  worker.onmessage = heard;
  worker.onerror = event => announce(`The trainer stopped: ${event.message}`);
  worker.postMessage({kind: "data", ...parts});
  $("app").hidden = false;
  $("details").open = innerWidth > 800; // on a phone the settings are folded
  $("ramp").style.background = `linear-gradient(90deg, ${VIRIDIS.map(c => `rgb(${c.map(Math.round)})`).join(", ")})`;
  readAddress();
  legend();
  showExperiments();
  begin();
  announce("A new model, untrained. Press Train.");
  darkness.addEventListener("change", redrawAll);
  let size = null;
  new ResizeObserver(() => {
    clearTimeout(size);
    size = setTimeout(redrawAll, 100);
  }).observe($("app"));
};
openPage().catch(error => {
  document.querySelector("header").append(`This browser can't run the page (${error.message}). A newer one can.`);
});
