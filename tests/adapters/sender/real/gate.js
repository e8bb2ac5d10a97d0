// Node's http: PORT, a file for the query of each request, and perhaps a certificate and its key.
const fs = require('fs');
const [port, log, cert, key] = process.argv.slice(2);
const handler = (request, response) => {
  const url = new URL(request.url, 'http://x');
  fs.appendFileSync(log, url.search.slice(1) + '\n');
  const parts = [];
  request.on('data', part => parts.push(part));
  request.on('end', () => {
    response.setHeader('X-Method', request.method);
    const body = Buffer.concat(parts);
    if (url.pathname === '/echo') { response.setHeader('Content-Length', body.length); response.end(body); }
    else if (url.pathname === '/big') {
      const size = Number(url.searchParams.get('size'));
      response.setHeader('Content-Length', size);
      response.end('x'.repeat(size));
    }
    else if (url.pathname === '/chunked') {
      for (let part = 0; part < 20; part++) response.write(String(part).padStart(5, '0'));
      response.end();
    }
    else if (url.pathname === '/none') { response.statusCode = 204; response.end(); }
    else if (url.pathname === '/close') { response.setHeader('Connection', 'close'); response.end('closed'); }
    else { response.statusCode = 404; response.end(); }
  });
};
const options = cert ? {cert: fs.readFileSync(cert), key: fs.readFileSync(key)} : {};
(cert ? require('https') : require('http')).createServer(options, handler).listen(Number(port), '127.0.0.1');
