"""A tutorial's time server: time_server.py HOST UNIX answers one format with that time in UTC, then ends."""
import socket
import sys
import time

host, moment = sys.argv[1], time.gmtime(int(sys.argv[2]))
sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
sock.bind((host, 0))
print("ready", sock.getsockname()[1], flush=True)
request, addr = sock.recvfrom(1024)
layout = request.decode("utf-8") if request else "%Y-%m-%d %X"
sock.sendto(time.strftime(layout, moment).encode("utf-8"), addr)
sock.close()
print(request)
