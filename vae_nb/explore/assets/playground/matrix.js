// C[m, n] = Σ_k A[m, k] B[n, k] + bias[n]. Steps through A and B are given, so that one function serves W h, Wᵀ g
// and g hᵀ.
// Sixteen sums stay in registers: 8 numbers are read for 16 products.
const product = (C, M, N, K, A, am, ak, B, bn, bk, bias) => {
  const M4 = M - M % 4, N4 = N - N % 4;
  for (let n = 0; n < N4; n += 4) for (let m = 0; m < M4; m += 4) {
    let c00 = 0, c01 = 0, c02 = 0, c03 = 0, c10 = 0, c11 = 0, c12 = 0, c13 = 0;
    let c20 = 0, c21 = 0, c22 = 0, c23 = 0, c30 = 0, c31 = 0, c32 = 0, c33 = 0;
    let p0 = m * am, p1 = p0 + am, p2 = p1 + am, p3 = p2 + am, q0 = n * bn, q1 = q0 + bn, q2 = q1 + bn, q3 = q2 + bn;
    for (let k = 0; k < K; k++) {
      const a0 = A[p0], a1 = A[p1], a2 = A[p2], a3 = A[p3];
      let b = B[q0];
      c00 += a0 * b; c10 += a1 * b; c20 += a2 * b; c30 += a3 * b;
      b = B[q1];
      c01 += a0 * b; c11 += a1 * b; c21 += a2 * b; c31 += a3 * b;
      b = B[q2];
      c02 += a0 * b; c12 += a1 * b; c22 += a2 * b; c32 += a3 * b;
      b = B[q3];
      c03 += a0 * b; c13 += a1 * b; c23 += a2 * b; c33 += a3 * b;
      p0 += ak; p1 += ak; p2 += ak; p3 += ak; q0 += bk; q1 += bk; q2 += bk; q3 += bk;
    }
    let o = m * N + n, s0 = 0, s1 = 0, s2 = 0, s3 = 0;
    if (bias) { s0 = bias[n]; s1 = bias[n + 1]; s2 = bias[n + 2]; s3 = bias[n + 3]; }
    C[o] = c00 + s0; C[o + 1] = c01 + s1; C[o + 2] = c02 + s2; C[o + 3] = c03 + s3; o += N;
    C[o] = c10 + s0; C[o + 1] = c11 + s1; C[o + 2] = c12 + s2; C[o + 3] = c13 + s3; o += N;
    C[o] = c20 + s0; C[o + 1] = c21 + s1; C[o + 2] = c22 + s2; C[o + 3] = c23 + s3; o += N;
    C[o] = c30 + s0; C[o + 1] = c31 + s1; C[o + 2] = c32 + s2; C[o + 3] = c33 + s3;
  }
  for (let m = 0; m < M; m++) for (let n = m < M4 ? N4 : 0; n < N; n++) { // what four doesn't divide
    let sum = bias ? bias[n] : 0;
    for (let k = 0, p = m * am, q = n * bn; k < K; k++, p += ak, q += bk) sum += A[p] * B[q];
    C[m * N + n] = sum;
  }
};
const columnSums = (out, G, rows, columns) => { // the gradient of a bias
  out.fill(0);
  for (let r = 0, at = 0; r < rows; r++) for (let c = 0; c < columns; c++, at++) out[c] += G[at];
};

// Four fifths of a digit's pixels are 0, and add nothing. An image is a list of the others: places and values.
// W1 is kept as (pixels, units), so that the weights of a pixel lie side by side.
const sparseForward = (H, X, n, W, bias, units) => {
  for (let b = 0; b < n; b++) {
    const o = b * units, end = X.start[b + 1];
    let j = X.start[b];
    for (let u = 0; u < units; u++) H[o + u] = bias[u];
    for (; j + 3 < end; j += 4) {
      const x0 = X.value[j], x1 = X.value[j + 1], x2 = X.value[j + 2], x3 = X.value[j + 3];
      const p0 = X.place[j] * units, p1 = X.place[j + 1] * units;
      const p2 = X.place[j + 2] * units, p3 = X.place[j + 3] * units;
      for (let u = 0; u < units; u++) H[o + u] += x0 * W[p0 + u] + x1 * W[p1 + u] + x2 * W[p2 + u] + x3 * W[p3 + u];
    }
    for (; j < end; j++) {
      const x = X.value[j], p = X.place[j] * units;
      for (let u = 0; u < units; u++) H[o + u] += x * W[p + u];
    }
  }
};
const sparseBackward = (dW, X, n, G, units) => {
  const U4 = units - units % 4;
  dW.fill(0);
  for (let b = 0; b < n; b++) for (let j = X.start[b]; j < X.start[b + 1]; j++) {
    const x = X.value[j], end = b * units + units;
    let p = X.place[j] * units, o = b * units;
    for (const e = o + U4; o < e; o += 4, p += 4) {
      dW[p] += x * G[o]; dW[p + 1] += x * G[o + 1]; dW[p + 2] += x * G[o + 2]; dW[p + 3] += x * G[o + 3];
    }
    for (; o < end; o++, p++) dW[p] += x * G[o];
  }
};

const activate = (out, raw, count, name) => {
  if (name === "relu") for (let i = 0; i < count; i++) out[i] = raw[i] > 0 ? raw[i] : 0;
  else for (let i = 0; i < count; i++) out[i] = raw[i] * sigmoid(raw[i]); // SiLU
};
const activateBackward = (G, raw, count, name) => { // in place
  if (name === "relu") { for (let i = 0; i < count; i++) if (raw[i] <= 0) G[i] = 0; return; }
  for (let i = 0; i < count; i++) {
    const s = sigmoid(raw[i]);
    G[i] *= s * (1 + raw[i] * (1 - s));
  }
};
