"""The input files of a job.

input_file  one of them, as the job's input names it
checks      checks of names, base64 and content
files       fetches and checks all of them, and puts them into ComfyUI's input folder
"""
