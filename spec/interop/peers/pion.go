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

// The sessions of this process.
type sessions map[string]dtls.Session

func (s sessions) Set(key []byte, session dtls.Session) error {
	s[string(key)] = session
	return nil
}

func (s sessions) Get(key []byte) (dtls.Session, error) {
	return s[string(key)], nil
}

func (s sessions) Del(key []byte) error {
	delete(s, string(key))
	return nil
}

func configure(server bool, credentials []string) *dtls.Config {
	config := &dtls.Config{SessionStore: sessions{}, ConnectContextMaker: func() (context.Context, func()) {
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

// Prints what arrives, until the other end or the program itself has closed.
func receive(ours context.Context, conn *dtls.Conn) {
	data := make([]byte, 16384)
	for {
		length, err := conn.Read(data)
		if err != nil && ours.Err() == nil {
			fmt.Println("closed")
			os.Exit(0)
		}
		if err != nil {
			return
		}
		fmt.Printf("%s\n", data[:length])
	}
}

func main() {
	server := os.Args[1] == "server"
	port, err := strconv.Atoi(os.Args[3])
	must(err)
	address := &net.UDPAddr{IP: net.ParseIP(os.Args[2]), Port: port}
	config := configure(server, os.Args[4:])
	line := make([]byte, 16384)
	for again := true; again; {
		conn := establish(server, address, config)
		fmt.Println("connected")
		ours, leave := context.WithCancel(context.Background())
		go receive(ours, conn)
		for {
			length, err := os.Stdin.Read(line)
			again = string(line[:length]) == "again\n"
			if err != nil || again {
				break
			}
			if string(line[:length]) == "empty\n" {
				length = 0
			}
			_, err = conn.Write(line[:length])
			must(err)
		}
		leave()
		must(conn.Close())
	}
}
