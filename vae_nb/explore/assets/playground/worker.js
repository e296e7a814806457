// The worker trains in slices of 40 ms, so that it hears what the page says, and sends the weights several times a
// second.
const workerMain = T => {
  const SLICE = 40,
    LOOK = 250,
    REPORT = 1000,
    channel = new MessageChannel();
  let data = null,
    training = null,
    running = false,
    goal = 0,
    single = false,
    looked = 0,
    reported = 0,
    begun = 0,
    busy = 0,
    seen = 0,
    turn = 0;
  let sums = {logp: 0, kl: 0, n: 0};
  const send = (kind, more = {}) => {
    const {images, model} = training,
      values = model.values.slice();
    postMessage(
      {
        kind,
        turn,
        images,
        values,
        steps: model.t,
        weight: T.klWeight(training),
        speed: busy ? (1000 * seen) / busy : 0,
        ...more
      },
      [values.buffer]
    );
  };
  const report = (kind, count) => {
    const found = T.fullReport(training.model, data.test, data.testLabels, count),
      {logp, kl, n} = sums;
    send(kind, {report: found, train: n ? {logp: logp / n, kl: kl / n} : null});
    sums = {logp: 0, kl: 0, n: 0};
  };
  const slice = () => {
    if (!running && !single) return;
    begun = performance.now();
    do {
      const {logp, kl, n} = T.trainStep(training);
      sums = {logp: sums.logp + logp, kl: sums.kl + kl, n: sums.n + n};
      seen += n;
      if (!Number.isFinite(logp - kl)) {
        running = single = false;
        goal = 0;
        send("broken");
        return;
      }
    } while (!single && performance.now() < begun + SLICE && !(goal && training.images >= goal));
    const now = performance.now();
    busy += now - begun;
    if (single) {
      single = false;
      report("report", 500);
      return;
    }
    if (goal && training.images >= goal) {
      goal = 0;
      running = false;
      report("reached", data.testLabels.length);
      return;
    }
    if (now > reported + REPORT) {
      report("report", 500);
      reported = looked = performance.now();
    } else if (now > looked + LOOK) {
      send("look");
      looked = now;
    }
    channel.port2.postMessage(0);
  };
  channel.port1.onmessage = slice;
  const actions = {
    data: ({train, test, trainLabels, testLabels}) => {
      data = {
        train: T.unpack(train, trainLabels.length),
        test: T.unpack(test, testLabels.length),
        trainLabels,
        testLabels
      };
    },
    start: ({options, turn: number}) => {
      turn = number;
      training = T.makeTraining(options, data.train, data.trainLabels);
      running = single = false;
      goal = busy = seen = 0;
      sums = {logp: 0, kl: 0, n: 0};
      report("report", 500);
    },
    set: ({options}) => {
      Object.assign(training.options, options);
      for (const name of ["floor", "beta"]) if (name in options) training.model[name] = options[name];
    },
    play: ({images = 0}) => {
      goal = images ? training.images + images : 0;
      if (!running) {
        running = true;
        channel.port2.postMessage(0);
      }
    },
    pause: () => {
      if (running) {
        running = false;
        goal = 0;
        report("report", 500);
      }
    },
    step: () => {
      if (!running) {
        single = true;
        channel.port2.postMessage(0);
      }
    },
    add: ({image, copies}) => {
      // a drawing, several times; its label is none of the digits, so that it is never left out
      data.train = T.append(data.train, image, copies);
      data.trainLabels = Uint8Array.from([...data.trainLabels, ...Array(copies).fill(255)]);
      training.train = data.train;
      training.labels = data.trainLabels;
      training.at = Infinity;
    }
  };
  onmessage = ({data: message}) => actions[message.kind](message);
};
