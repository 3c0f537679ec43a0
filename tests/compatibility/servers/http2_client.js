// A POST that waits for `100 Continue`, and a GET with cookies, over HTTP/2. Usage: http2_client.js URL AUTHORITY.
// Prints an object: whether it was asked to continue, the answer, and how many fields the cookies were sent in.
const http2 = require("http2");
const [url, authority] = process.argv.slice(2);
const session = http2.connect(url, { settings: { enablePush: false } });
const cookie = Array.from({ length: 150 }, (_, n) => `c${n}=${n}`).join("; ");

function answer(stream) {
  return new Promise((resolve, reject) => {
    let status, body = "";
    stream.on("response", (headers) => (status = headers[":status"]));
    stream.on("data", (data) => (body += data));
    stream.on("end", () => resolve({ status, body }));
    stream.on("error", reject);
  });
}

async function main() {
  const post = session.request({ ":method": "POST", ":path": "/", ":authority": authority, expect: "100-continue" });
  const continued = await new Promise((resolve) => {
    post.on("continue", () => resolve(true));
    setTimeout(() => resolve(false), 5000);
  });
  post.end("body");
  const posted = await answer(post);
  const crumbs = cookie.split("; ");
  const get = session.request({ ":path": "/headers", ":authority": authority, cookie: crumbs });
  const got = await answer(get);
  console.log(JSON.stringify({ continued, posted, crumbs: crumbs.length, got }));
  session.close();
}
main();
