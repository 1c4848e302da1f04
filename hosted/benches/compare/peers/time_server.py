"""The time over UDP, as a tutorial writes it, but without end: time_server.py HOST PORT"""
import socket
import sys
import time

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((sys.argv[1], int(sys.argv[2])))
print("ready", flush=True)
while True:
    request, addr = sock.recvfrom(1024)
    layout = request.decode("utf-8") if request else "%Y-%m-%d %X"
    sock.sendto(time.strftime(layout).encode("utf-8"), addr)
