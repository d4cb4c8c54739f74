// `node --require loopback.cjs ...`: servers listen on loopback alone. Portkey's listens everywhere, and has no option for one.
const net = require("node:net");

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, ...rest) {
  return listen.call(this, port, "127.0.0.1", ...rest.filter((one) => typeof one === "function"));
};
