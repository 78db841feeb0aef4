// werift on one end of an association: werift.js FOLDER client|server IP PORT cert CERT KEY CA, where FOLDER has its
// node_modules. peer.h says what such a program does with its standard input and output. Its close() says nothing to the
// other end.
'use strict'
const dgram = require('dgram')
const fs = require('fs')
const [folder, role, ip, port, , cert, key] = process.argv.slice(2)
const { DtlsClient, DtlsServer } = require(`${folder}/werift/lib/dtls/src`)

const socket = dgram.createSocket('udp4')
let other = role === 'client' ? { address: ip, port: Number(port) } : undefined

// What werift wants of a transport.
const transport = {
  type: 'udp',
  address: { address: ip, port: Number(port), family: 'IPv4' },
  onData: () => {},
  send: (data) => new Promise((resolve) => socket.send(data, other.port, other.address, resolve)),
  close: async () => socket.close(),
}
socket.on('message', (data, from) => {
  other = other ?? from
  transport.onData(data, [from.address, from.port])
})

const end = new (role === 'client' ? DtlsClient : DtlsServer)({
  transport,
  cert: fs.readFileSync(cert, 'utf8'),
  key: fs.readFileSync(key, 'utf8'),
  signatureHash: { hash: 4, signature: 3 }, // SHA-256, ECDSA
  certificateRequest: role === 'server',
  extendedMasterSecret: true,
})
end.onConnect.subscribe(() => console.log('connected'))
end.onData.subscribe((data) => console.log(data.toString()))
end.onClose.subscribe(() => {
  console.log('closed')
  process.exit(0)
})
end.onError.subscribe((error) => {
  console.error(error)
  process.exit(1)
})
process.stdin.on('data', (data) => end.send(data))
process.stdin.on('end', () => process.exit(0))

if (role === 'client') end.connect()
else socket.bind(Number(port), ip, () => console.log('listening'))
