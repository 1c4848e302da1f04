"""The first TCP server of a tutorial: greeting_tcp_server.py HOST answers one greeting, then ends."""
import socket
import sys

host = sys.argv[1]
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
sock.bind((host, 0))
sock.listen()
print("ready", sock.getsockname()[1], flush=True)
conn, addr = sock.accept()
greeting = conn.recv(1024)
conn.send(b"hi")
conn.close()
sock.close()
print(greeting)
