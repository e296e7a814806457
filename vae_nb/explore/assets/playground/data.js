// Digits as lists of their pixels that aren't 0. Grey is a number from 0 to 15.
const unpack = (bytes, count) => {
  // two pixels in a byte
  const start = new Uint32Array(count + 1),
    place = [],
    grey = [];
  for (let i = 0; i < count; i++) {
    for (let p = 0; p < PIXELS; p++) {
      const byte = bytes[(i * PIXELS) / 2 + (p >> 1)],
        value = p & 1 ? byte & 15 : byte >> 4;
      if (value) {
        place.push(p);
        grey.push(value);
      }
    }
    start[i + 1] = place.length;
  }
  return {start, place: Uint16Array.from(place), value: Uint8Array.from(grey)};
};
const makeBatch = () => ({
  start: new Uint32Array(BATCH + 1),
  place: new Uint16Array(BATCH * PIXELS),
  value: new Float32Array(BATCH * PIXELS)
});
// Images number `which` of the data, as the model sees them: grey, or black and white, sampled with grey as
// probability.
const fillBatch = (batch, data, which, binary, random) => {
  let at = 0;
  for (let b = 0; b < which.length; b++) {
    batch.start[b] = at;
    for (let j = data.start[which[b]]; j < data.start[which[b] + 1]; j++) {
      const grey = data.value[j];
      if (binary && random.uniform() * 15 >= grey) continue;
      batch.place[at] = data.place[j];
      batch.value[at++] = binary ? 1 : grey / 15;
    }
  }
  batch.start[which.length] = at;
  return batch;
};
const shuffle = (list, random) => {
  for (let i = list.length - 1; i > 0; i--) {
    const j = Math.floor(random.uniform() * (i + 1));
    [list[i], list[j]] = [list[j], list[i]];
  }
  return list;
};
const sparse = grey => {
  // 784 numbers, 0 to 15, as data of one image
  const place = Array.from(grey.keys()).filter(p => grey[p]);
  return {
    start: Uint32Array.of(0, place.length),
    place: Uint16Array.from(place),
    value: Uint8Array.from(place, p => grey[p])
  };
};
const append = (data, grey, copies) => {
  const one = sparse(grey),
    ends = Array.from({length: copies}, (_, i) => data.start.at(-1) + (i + 1) * one.place.length);
  const several = (type, from, more) => {
    const all = new type(from.length + copies * more.length);
    all.set(from);
    for (let i = 0; i < copies; i++) all.set(more, from.length + i * more.length);
    return all;
  };
  return {
    start: Uint32Array.from([...data.start, ...ends]),
    place: several(Uint16Array, data.place, one.place),
    value: several(Uint8Array, data.value, one.value)
  };
};
const dense = (data, i) => {
  // 784 numbers, 0 to 15
  const grey = new Uint8Array(PIXELS);
  for (let j = data.start[i]; j < data.start[i + 1]; j++) grey[data.place[j]] = data.value[j];
  return grey;
};
