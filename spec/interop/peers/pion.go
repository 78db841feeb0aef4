// Pion on one end of an association: PROGRAM client|server IP PORT cert CERT KEY CA | psk IDENTITY KEY.
// peer.h says what such a program does with its standard input and output.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"strconv"
	"time"

	"github.com/pion/dtls/v2"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func configure(server bool, credentials []string) *dtls.Config {
	config := &dtls.Config{ConnectContextMaker: func() (context.Context, func()) {
		return context.WithTimeout(context.Background(), time.Minute)
	}}
	if credentials[0] == "psk" {
		config.PSK = func([]byte) ([]byte, error) { return []byte(credentials[2]), nil }
		config.PSKIdentityHint = []byte(credentials[1])
		config.CipherSuites = []dtls.CipherSuiteID{dtls.TLS_PSK_WITH_AES_128_GCM_SHA256}
		return config
	}
	certificate, err := tls.LoadX509KeyPair(credentials[1], credentials[2])
	must(err)
	pem, err := os.ReadFile(credentials[3])
	must(err)
	authorities := x509.NewCertPool()
	authorities.AppendCertsFromPEM(pem)
	config.Certificates = []tls.Certificate{certificate}
	config.RootCAs, config.ClientCAs, config.ServerName = authorities, authorities, "localhost"
	if server {
		config.ServerName, config.ClientAuth = "", dtls.RequireAndVerifyClientCert
	}
	return config
}

func establish(server bool, address *net.UDPAddr, config *dtls.Config) *dtls.Conn {
	if !server {
		conn, err := dtls.Dial("udp", address, config)
		must(err)
		return conn
	}
	listener, err := dtls.Listen("udp", address, config)
	must(err)
	fmt.Println("listening")
	conn, err := listener.Accept()
	must(err)
	return conn.(*dtls.Conn)
}

func main() {
	server := os.Args[1] == "server"
	port, err := strconv.Atoi(os.Args[3])
	must(err)
	conn := establish(server, &net.UDPAddr{IP: net.ParseIP(os.Args[2]), Port: port}, configure(server, os.Args[4:]))
	fmt.Println("connected")

	go func() {
		data := make([]byte, 16384)
		for {
			length, err := conn.Read(data)
			if err != nil {
				fmt.Println("closed")
				os.Exit(0)
			}
			fmt.Printf("%s\n", data[:length])
		}
	}()

	line := make([]byte, 16384)
	for {
		length, err := os.Stdin.Read(line)
		if err != nil {
			break
		}
		if string(line[:length]) == "empty\n" {
			length = 0
		}
		_, err = conn.Write(line[:length])
		must(err)
	}
	must(conn.Close())
}
