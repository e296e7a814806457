const bytes = Uint8Array.from(atob(DATA), c => c.charCodeAt(0)).buffer;
const half = h => {
  const sign = h >> 15 ? -1 : 1, exponent = h >> 10 & 31, fraction = (h & 1023) / 1024;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction) : 2 ** -14 * fraction);
};
const read = ({type, at, n, scale}) => {
  if (type === "float32") return new Float32Array(bytes, at, n);
  if (type === "float16") return Float32Array.from(new Uint16Array(bytes, at, n), half);
  if (type === "uint8") return new Uint8Array(bytes, at, n);
  const steps = read(scale), inputs = n / steps.length;
  return Float32Array.from(new Int8Array(bytes, at, n), (q, i) => q * steps[Math.floor(i / inputs)]);
};
