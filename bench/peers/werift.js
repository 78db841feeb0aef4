// werift, which is DTLS in TypeScript on Node's crypto: a DtlsServer for each peer behind one socket.
//
//   node werift.js CERT KEY MODE          MODE: echo, as in load.c
'use strict'
const dgram = require('dgram')
const fs = require('fs')
const path = require('path')
const modules = process.env.NODE_PATH
const { DtlsServer } = require(path.join(modules, 'werift/lib/dtls/src'))

const [cert, key] = process.argv.slice(2, 4).map((file) => fs.readFileSync(file, 'utf8'))
const socket = dgram.createSocket('udp4')
const peers = new Map()

function accept(from) {
  const name = `${from.address}:${from.port}`
  const transport = {
    type: 'udp',
    address: { address: from.address, port: from.port, family: 'IPv4' },
    onData: () => {},
    send: async (data) => socket.send(data, from.port, from.address),
    close: async () => {},
  }
  const server = new DtlsServer({
    transport, cert, key,
    signatureHash: { hash: 4, signature: 3 }, // SHA-256, ECDSA
    extendedMasterSecret: true,
  })
  server.onData.subscribe((data) => server.send(data))
  server.onClose.subscribe(() => peers.delete(name))
  server.onError.subscribe(() => peers.delete(name))
  peers.set(name, transport)
  return transport
}

socket.on('message', (data, from) => {
  const transport = peers.get(`${from.address}:${from.port}`) ?? accept(from)
  transport.onData(data, [from.address, from.port])
})
socket.bind(0, '127.0.0.1', () => {
  socket.setRecvBufferSize(4 << 20)
  console.log(socket.address().port)
})
process.stdin.on('data', () => {
  const used = process.cpuUsage()
  console.log(`${((used.user + used.system) / 1e6).toFixed(6)} ${process.memoryUsage.rss()}`)
})
process.stdin.on('end', () => process.exit(0))
