# Installs the FedUI agent from @URL@, enrols it and runs it. Run it again at any time: it updates the agent, and never
# enrols twice. $env:FEDAGENT_TOKEN holds the token; it is asked for if it is needed and not set.
# FEDAGENT_PLACE: where to install. FEDAGENT_HOME: the agent's folder. FEDAGENT_NAME: this client's name. FEDAGENT_RUN=no: don't run it.
# Everything is inside a function that the last line calls: of a script that was cut off on its way nothing runs.
function Install-FedAgent {
  $ErrorActionPreference = 'Stop'
  $place = if ($env:FEDAGENT_PLACE) { $env:FEDAGENT_PLACE } else { Join-Path $env:LOCALAPPDATA 'fedagent' }
  $python = @('py', 'python3', 'python') | Where-Object {
    (Get-Command $_ -ErrorAction SilentlyContinue) -and
    (& $_ -c 'import sys; print(sys.version_info >= (3, 11))' 2>$null) -eq 'True'
  } | Select-Object -First 1
  if (-not $python) { throw 'Python 3.11 or newer is needed, and was not found.' }
  Write-Host "Installing the agent in $place ..."
  & $python -m venv $place
  if ($LASTEXITCODE) { throw "No virtual environment could be made in $place." }
  & "$place\Scripts\python.exe" -m pip install --quiet --disable-pip-version-check --upgrade --upgrade-strategy only-if-needed @INDEX@ @PACKAGE@
  if ($LASTEXITCODE) { throw 'The agent could not be installed; pip has said why.' }
  $fedagent = "$place\Scripts\fedagent.exe"
  & $fedagent status *> $null
  if ($LASTEXITCODE) {
    if (-not $env:FEDAGENT_TOKEN) { $env:FEDAGENT_TOKEN = Read-Host 'Token' }
    $name = if ($env:FEDAGENT_NAME) { @('--name', $env:FEDAGENT_NAME) } else { @() }
    & $fedagent enroll @URL@ @name
    if ($LASTEXITCODE) { throw 'The agent could not be enrolled.' }
  }
  Remove-Item Env:FEDAGENT_TOKEN -ErrorAction SilentlyContinue
  Write-Host "The agent is $fedagent"
  if ($env:FEDAGENT_RUN -ne 'no') { & $fedagent run }
}

Install-FedAgent
