"""The greeting over TCP, as a tutorial writes it, but without end: greeting_server.py HOST PORT"""
import socket
import sys

sock = socket.socket(socket.AF_INET)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
sock.bind((sys.argv[1], int(sys.argv[2])))
sock.listen(4096)
print("ready", flush=True)
while True:
    conn, addr = sock.accept()
    conn.recv(1024)
    conn.send(b"hi")
    conn.close()
