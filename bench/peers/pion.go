// Pion's server, as its own examples make one: a goroutine for each peer.
//
//	pion CERT KEY MODE          MODE: echo, as in load.c
package main

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"log"
	"net"
	"os"
	"strings"
	"syscall"

	"github.com/pion/dtls/v2"
)

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func echo(conn net.Conn) {
	defer conn.Close()
	data := make([]byte, 16384)
	for {
		length, err := conn.Read(data)
		if err != nil {
			return
		}
		if _, err = conn.Write(data[:length]); err != nil {
			return
		}
	}
}

// Pion's Accept makes the handshake itself: as many at a time as there are of these.
func accept(listener net.Listener) {
	for {
		if conn, err := listener.Accept(); err == nil {
			go echo(conn)
		}
	}
}

func usage() (float64, uint64) {
	var used syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	text, err := os.ReadFile("/proc/self/statm")
	must(err)
	var all, resident uint64
	_, err = fmt.Sscan(string(text), &all, &resident)
	must(err)
	seconds := float64(used.Utime.Sec+used.Stime.Sec) + float64(used.Utime.Usec+used.Stime.Usec)/1e6
	return seconds, resident * uint64(os.Getpagesize())
}

func main() {
	certificate, err := tls.LoadX509KeyPair(os.Args[1], os.Args[2])
	must(err)
	address := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}
	listener, err := dtls.Listen("udp", address, &dtls.Config{
		Certificates:         []tls.Certificate{certificate},
		ExtendedMasterSecret: dtls.RequireExtendedMasterSecret,
		MTU:                  1472,
	})
	must(err)
	parts := strings.Split(listener.Addr().String(), ":")
	fmt.Println(parts[len(parts)-1])
	for i := 0; i < 64; i++ {
		go accept(listener)
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		seconds, bytes := usage()
		fmt.Printf("%.6f %d\n", seconds, bytes)
	}
}
