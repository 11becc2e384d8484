"""How a kernel is left, whatever happened to it."""

import threading

import zmq

from cxr_utils.pipeline.execution import OwnInterpreterKernelManager


def test_a_socket_that_a_signal_left_open_holds_nothing_up(tmp_path):
    manager = OwnInterpreterKernelManager(tmp_path)
    client = manager.client()
    left = [one.context.socket(zmq.PUSH) for one in (manager, client)]
    for socket in left:  # as where the signal comes before its context knows of it
        socket.context._sockets.discard(socket)

    def end():
        manager.stop()
        client.__del__()

    ending = threading.Thread(target=end, daemon=True)
    ending.start()
    ending.join(20)
    held_up = ending.is_alive()
    for socket in left:
        socket.close()
    assert not held_up
